"""`make bench`: the table of figures, each beside its bar and what the bare tool takes.

Run as root on a machine of CI's kind (two cores), with nothing else going on. Everything
runs with the shipped configuration, but for folders, cgroup root and the socket.

    bench.py [--json] [--quick] [--only WORD]...
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import entry_points

import adapters
import attaching
import bare
import calibration
import deciding
import footprint
import lives
import overlays
import pods
import relay
import restarts
import scrape
from image import image_against_tools
from report import Figure, as_json, table

from support import machine
from support.daemon import Daemon, running
from support.host import Connection


def sections(quick: bool) -> dict[str, Callable[[], Iterable[Figure]]]:
    """What can be measured, by the word that selects it."""
    count = 5 if quick else 40

    def on(runtime: str, *measures: Callable[[Daemon, Connection], Figure]) -> Iterator[Figure]:
        with running(runtime=runtime) as daemon:
            bridge = daemon.connect()
            footprint.settled(daemon)
            for measure in measures:
                yield measure(daemon, bridge)
            bridge.close()

    return {
        "start": lambda: [footprint.start_to_negotiate(5 if quick else 20)],
        "memory": footprint.memory,
        "life": lambda: [
            *on("crun", lambda daemon, bridge: lives.life_against_bare(daemon, bridge, "crun", count)),
            *on("runc", lambda daemon, bridge: lives.life_against_bare(daemon, bridge, "runc", count)),
        ],
        "exec": lambda: on("crun", lambda d, b: lives.exec_against_bare(d, b, "crun", 2 * count)),
        "rtt": lambda: on("crun", lambda _, bridge: lives.round_trip(bridge, 100 * count)),
        "properties": lambda: on("crun", lambda _, bridge: lives.properties(bridge, 10 * count)),
        "concurrency": lambda: on("crun", lambda _, bridge: lives.concurrency(bridge, 1 if quick else 3)),
        "relay": lambda: on("crun", lambda _, bridge: relay.gibibyte(bridge, 2 if quick else 20)),
        "waits": footprint.pending_waits,
        "attach": lambda: [attaching.late_devices(1 if quick else 3)],
        "metrics": lambda: [scrape.of_containers(10 if quick else 100, 5 if quick else 50)],
        "overlay": lambda: [overlays.added_and_removed(5 * count)],
        "image": lambda: image_against_tools((256 if quick else 1024) << 20, 1 if quick else 3),
        "restart": lambda: restarts.killed(5 if quick else 50, 2 if quick else 10),
        "network": lambda: [adapters.added_to_a_pod(count)],
        "policy": lambda: deciding.by_size(quick),
        "fragments": lambda: deciding.fragments_by_size(quick),
        "pods": lambda: [
            *on("crun", lambda daemon, bridge: pods.workload_against_bare(daemon, bridge, "crun", count)),
            *on("runc", lambda daemon, bridge: pods.workload_against_bare(daemon, bridge, "runc", count)),
            *on("crun", lambda daemon, bridge: pods.pod_of_three(daemon, bridge, "crun", count // 2)),
            *on("runc", lambda daemon, bridge: pods.pod_of_three(daemon, bridge, "runc", count // 2)),
            pods.memory(5 if quick else 50),
        ],
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--quick", action="store_true", help="fewer samples: a look, not a measurement")
    parser.add_argument("--only", action="append", help="one section; may be repeated")
    asked = parser.parse_args()
    bare.become_subreaper()
    known = sections(asked.quick)
    chosen = asked.only or list(known)
    if unknown := set(chosen) - set(known):
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(known)}")
    plugins = [entry.name for entry in entry_points(group="uvmd.plugins.v1")]
    facts: dict[str, object] = {
        "machine": machine.describe(),
        "plugins": plugins,
        "cpu_loop_ms": round(calibration.cpu_loop(), 2),
        "ping_pong_ms": round(calibration.ping_pong(), 4),
    }
    figures: list[Figure] = []
    began = time.monotonic()
    for word in chosen:
        print(f"measuring {word} ...", file=sys.stderr)
        figures += known[word]()
    if asked.json:
        print(as_json(facts, figures))
    else:
        print(f"\n{facts['machine']}; {len(plugins)} plugins loaded: {', '.join(plugins) or 'none'}")
        print(
            f"calibration: CPU loop {facts['cpu_loop_ms']} ms, socket ping-pong {facts['ping_pong_ms']} ms\n"
        )
        print(table(figures))
        missed = [figure.what for figure in figures if not figure.passed]
        print(
            f"\n{len(figures) - len(missed)} of {len(figures)} bars met in {time.monotonic() - began:.0f} s"
        )
    return 1 if any(not figure.passed for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
