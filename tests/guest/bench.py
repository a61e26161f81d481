"""`make guest-bench`: figures from the guest, each beside what the bare system takes there.

A plugin adds its own with a file ``plugins/NAME/tests/guest_bench.py`` that has a function
``figures(guest) -> Iterable[Figure]``; it gets a fresh guest with uvmd running.

    bench.py [--json] [--quick] [--only WORD]...
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

from report import Figure, as_json, table

from guest.harness.code import ROOTFS
from guest.harness.guest import Guest
from guest.harness.snapshots import accelerator, boot_product, ready
from guest.harness.timeline import Boot, negotiate
from support import machine
from support.containers import created
from support.host import NULL_ID
from uvmd.api.testing.guest.profiles import PROFILES

#: A service that does nothing, started anew by systemd as uvmd is.
BARE = """\
[Unit]
StartLimitIntervalSec=0
[Service]
Type=exec
ExecStart=/bin/sleep infinity
Restart=on-failure
RestartSec=100ms
"""


def boot() -> Boot:
    made = boot_product(PROFILES["v2"])
    try:
        return negotiate(made)
    finally:
        made.close()


def restored(count: int) -> list[float]:
    """Seconds from a saved guest on disk to an answered Negotiate."""
    snapshot, seconds = ready(PROFILES["v2"]), []
    for _ in range(count):
        began = time.monotonic()
        made = snapshot.restore()
        try:
            assert made.bridge
            seconds.append(time.monotonic() - began)
        finally:
            made.close()
    return seconds


def container_lives(guest: Guest, count: int) -> list[float]:
    """Seconds of a container from create to delete, as the host sees them."""
    seconds = []
    for _ in range(count):
        began = time.monotonic()
        assert guest.run("/bin/true").exit_code == 0
        seconds.append(time.monotonic() - began)
    return seconds


def replacements(guest: Guest, count: int) -> dict[str, float]:
    """Seconds until another daemon answers, with a container running, and until systemd alone is done."""
    seconds: dict[str, list[float]] = {name: [] for name in ("restart", "kill", "bare restart", "bare kill")}
    bridge = guest.bridge
    with created(bridge, "/bin/sleep", "600", root=ROOTFS) as container:
        container.init()
        for name in ("restart", "kill") * count:
            before = guest.daemon.pids["daemon"]
            began = time.monotonic()
            if name == "restart":
                guest.sh("systemctl restart uvmd", timeout_s=60)
            else:
                guest.call(_kill, before)
            bridge.properties(NULL_ID, "uvmd.ps")
            seconds[name].append(time.monotonic() - began)
            assert guest.daemon.pids["daemon"] != before
            # Its own warming up is over: the next one shall not wait for it.
            assert container.exec("/bin/true").wait() == 0
    for name, found in guest.call(_bare, BARE, count, timeout_s=120).items():
        seconds[f"bare {name}"] = found
    return {name: statistics.median(found) for name, found in seconds.items()}


def _kill(pid: int) -> None:
    import os
    import signal

    os.kill(pid, signal.SIGKILL)


def _bare(unit: str, count: int) -> dict[str, list[float]]:
    """The same of a service that does nothing, in the guest: until its process is there."""
    import os
    import subprocess
    import time

    def process() -> int:
        try:
            with open("/sys/fs/cgroup/system.slice/bare.service/cgroup.procs", encoding="ascii") as file:
                return int(file.read().split()[0])
        except (FileNotFoundError, IndexError):
            return 0

    with open("/run/systemd/system/bare.service", "w", encoding="ascii") as file:
        file.write(unit)
    for verb in ("daemon-reload", "start bare"):
        subprocess.run(["systemctl", *verb.split()], check=True)
    seconds: dict[str, list[float]] = {"restart": [], "kill": []}
    for _ in range(count):
        began = time.monotonic()
        subprocess.run(["systemctl", "restart", "bare"], check=True)
        seconds["restart"].append(time.monotonic() - began)
        before = process()
        began = time.monotonic()
        os.kill(before, 9)
        while process() in (0, before):
            time.sleep(0.01)
        seconds["kill"].append(time.monotonic() - began)
    subprocess.run(["systemctl", "stop", "bare"], check=True)
    return seconds


def facts(count: int) -> dict[str, object]:
    """What is shown without a bar: it depends on the machine and on the accelerator."""
    print("measuring the boot ...", file=sys.stderr)
    booted = boot()
    print("measuring restore and containers ...", file=sys.stderr)
    seconds = restored(count)
    made = ready(PROFILES["v2"]).restore()
    try:
        lives = container_lives(made, count)
        print("measuring restarts ...", file=sys.stderr)
        replaced = replacements(made, max(3, count // 2))
    finally:
        made.close()
    return {
        "machine": machine.describe(),
        "accelerator": accelerator(),
        "boot": booted.lines(),
        "boot_s": booted.negotiated,
        "boot_uvmd_s": booted.uvmd_s,
        "boot_cpu_s": booted.cpu,
        "restore_s": statistics.median(seconds),
        "container_s": statistics.median(lives),
        "restart_s": replaced,
    }


def of_plugin(path: Path) -> Callable[[Guest], Iterable[Figure]]:
    """Load a plugin's file of figures."""
    spec = importlib.util.spec_from_file_location(f"guest_bench_{path.parents[1].name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: Callable[[Guest], Iterable[Figure]] = module.figures
    return made


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the tables")
    parser.add_argument("--quick", action="store_true", help="fewer samples: a look, not a measurement")
    parser.add_argument("--only", action="append", help="guest, or a plugin's folder; may be repeated")
    asked = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("QEMU is run as root here: sudo make guest-bench")
    plugins = {path.parents[1].name: path for path in machine.ROOT.glob("plugins/*/tests/guest_bench.py")}
    chosen = asked.only or ["guest", *plugins]
    if unknown := set(chosen) - {"guest", *plugins}:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(['guest', *plugins])}")
    shown = facts(3 if asked.quick else 10) if "guest" in chosen else {}
    figures: list[Figure] = []
    for name in chosen:
        if name in plugins:
            print(f"measuring {name} ...", file=sys.stderr)
            made = ready(PROFILES["v2"]).restore()
            try:
                figures += of_plugin(plugins[name])(made)
            finally:
                made.close()
    if asked.json:
        print(as_json(shown, figures))
    else:
        report(shown, figures)
    return 1 if any(not figure.passed for figure in figures) else 0


def report(shown: dict[str, object], figures: list[Figure]) -> None:
    if shown:
        print(f"\n{shown['machine']}, guest by {shown['accelerator']}\n")
        lines = shown["boot"]
        assert isinstance(lines, list)
        print("\n".join(f"  {line}" for line in lines))
        print(f"  a saved guest to its Negotiate   {shown['restore_s']:.2f} s")
        print(f"  a container, create to delete    {shown['container_s']:.2f} s")
        replaced = shown["restart_s"]
        assert isinstance(replaced, dict)
        for name, text in (
            ("restart", "systemctl restart uvmd to the next answer"),
            ("kill", "SIGKILL to it"),
        ):
            bare = f"a service that does nothing: {replaced[f'bare {name}']:.2f} s"
            print(f"  {text:<45}{replaced[name]:.2f} s; {bare}")
    if figures:
        print(f"\n{table(figures)}")


if __name__ == "__main__":
    sys.exit(main())
