"""`make bench`: the table of figures, each beside its bar and what the bare tool takes.

Run as root on a machine of CI's kind (two cores), with nothing else going on. Everything
runs with the shipped configuration, but for folders, cgroup root and the socket; once for
each stance of the host: shipped (no policy sent), open (the open door), rego (a policy of
60 containers; what comes together is then shown without a bar, since a strict VM changes
one thing at a time). docs/figures.md explains the table.

    bench.py [--json] [--quick] [--only WORD]... [--under shipped|open|rego]...
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
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
from stances import REGO, SHIPPED, STANCES, Stance, place_of_our_own

from support import machine
from support.daemon import Daemon
from support.host import Connection

#: What is measured once, and why.
ONCE = {
    "start": "it ends before a policy can come",
    "image": "it is made on the host's side",
    "attach": "a strict VM takes no layer without dm-verity",
    "policy": "it is about policies of its own",
    "fragments": "it is about policies of its own",
}
#: What comes together: shown without a bar where one thing is changed at a time.
TOGETHER = ("concurrency", "pod")


def sections(quick: bool) -> dict[str, Callable[[Stance], Iterable[Figure]]]:
    """What can be measured, by the word that selects it."""
    count = 5 if quick else 40

    def on(
        stance: Stance, runtime: str, *measures: Callable[[Daemon, Connection], Figure]
    ) -> Iterator[Figure]:
        with stance.running(runtime=runtime) as daemon:
            bridge = stance.connect(daemon)
            footprint.settled(daemon)
            for measure in measures:
                yield measure(daemon, bridge)
            bridge.close()

    return {
        "start": lambda _: [footprint.start_to_negotiate(5 if quick else 20)],
        "memory": footprint.memory,
        "life": lambda stance: [
            *on(stance, "crun", lambda d, b: lives.life_against_bare(d, b, "crun", count)),
            *on(stance, "runc", lambda d, b: lives.life_against_bare(d, b, "runc", count)),
        ],
        "exec": lambda stance: on(
            stance, "crun", lambda d, b: lives.exec_against_bare(d, b, "crun", 2 * count)
        ),
        "rtt": lambda stance: on(stance, "crun", lambda _, b: lives.round_trip(b, 100 * count)),
        "properties": lambda stance: on(stance, "crun", lambda _, b: lives.properties(b, 10 * count)),
        "concurrency": lambda stance: on(
            stance, "crun", lambda _, b: lives.concurrency(b, 1 if quick else 3)
        ),
        "relay": lambda stance: on(stance, "crun", lambda _, b: relay.gibibyte(b, 2 if quick else 20)),
        "waits": footprint.pending_waits,
        "attach": lambda _: [attaching.late_devices(1 if quick else 3)],
        "metrics": lambda stance: [
            scrape.of_containers(stance, 10 if quick else 100, 5 if quick else 50),
            scrape.unread(stance, 2 if quick else 10),
        ],
        "overlay": lambda stance: [overlays.added_and_removed(stance, count // 2)],
        "image": lambda _: image_against_tools((256 if quick else 1024) << 20, 1 if quick else 3),
        "restart": lambda stance: restarts.killed(stance, 5 if quick else 50, 2 if quick else 10),
        "network": lambda stance: [adapters.added_to_a_pod(stance, count)],
        "policy": lambda _: deciding.by_size(quick),
        "fragments": lambda _: deciding.fragments_by_size(quick),
        "workload": lambda stance: [
            *on(stance, "crun", lambda d, b: pods.workload_against_bare(d, b, "crun", count)),
            *on(stance, "runc", lambda d, b: pods.workload_against_bare(d, b, "runc", count)),
        ],
        "pod": lambda stance: [
            *on(stance, "crun", lambda d, b: pods.pod_of_three(d, b, "crun", count // 2)),
            *on(stance, "runc", lambda d, b: pods.pod_of_three(d, b, "runc", count // 2)),
        ],
        "pods": lambda stance: [pods.memory(stance, 5 if quick else 50)],
    }


def measured(words: Sequence[str], stances: Sequence[Stance], quick: bool) -> Iterator[Figure]:
    """The figures of these sections under these stances; the columns of a line are neighbours in time."""
    known = sections(quick)
    for word in words:
        for stance in [SHIPPED] if word in ONCE else stances:
            print(f"measuring {word} ({stance.title}) ...", file=sys.stderr)
            for figure in known[word](stance):
                bar = None if stance is REGO and word in TOGETHER else figure.bar
                yield replace(figure, stance=stance.title, bar=bar)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--quick", action="store_true", help="fewer samples: a look, not a measurement")
    parser.add_argument("--only", action="append", help="one section; may be repeated")
    parser.add_argument(
        "--under", action="append", choices=[one.word for one in STANCES], help="one stance; may be repeated"
    )
    asked = parser.parse_args()
    bare.become_subreaper()
    if why := calibration.settle():
        print(f"the kernel's caches are as they were: {why}", file=sys.stderr)
    known = sections(asked.quick)
    chosen = asked.only or list(known)
    if unknown := set(chosen) - set(known):
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(known)}")
    stances = [one for one in STANCES if not asked.under or one.word in asked.under]
    plugins = [entry.name for entry in entry_points(group="uvmd.plugins.v1")]
    facts: dict[str, object] = {
        "machine": machine.describe(),
        "plugins": plugins,
        "cpu_loop_ms": round(calibration.cpu_loop(), 2),
        "ping_pong_ms": round(calibration.ping_pong(), 4),
    }
    began = time.monotonic()
    with place_of_our_own():
        figures = list(measured(chosen, stances, asked.quick))
    if asked.json:
        print(as_json(facts, figures))
    else:
        print(f"\n{facts['machine']}; {len(plugins)} plugins loaded: {', '.join(plugins) or 'none'}")
        print(
            f"calibration: CPU loop {facts['cpu_loop_ms']} ms, socket ping-pong {facts['ping_pong_ms']} ms\n"
        )
        print(f"{table(figures)}\n")
        for word in chosen:
            if word in ONCE and len(stances) > 1:
                print(f"{word} is measured once: {ONCE[word]}")
        missed = [figure for figure in figures if not figure.passed]
        for figure in missed:
            print(f"missed ({figure.stance}): {figure.what}; beside it {figure.baseline or 'nothing'}")
        print(
            f"\n{len(figures) - len(missed)} of {len(figures)} bars met in {time.monotonic() - began:.0f} s"
        )
    return 1 if any(not figure.passed for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
