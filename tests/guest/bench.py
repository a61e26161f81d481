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

from guest.harness.guest import Guest
from guest.harness.snapshots import accelerator, boot_product, ready
from guest.harness.timeline import Boot, negotiate
from support import machine
from uvmd.api.testing.guest.profiles import PROFILES


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


def facts(count: int) -> dict[str, object]:
    """What is shown without a bar: it depends on the machine and on the accelerator."""
    print("measuring the boot ...", file=sys.stderr)
    booted = boot()
    print("measuring restore and containers ...", file=sys.stderr)
    seconds = restored(count)
    made = ready(PROFILES["v2"]).restore()
    try:
        lives = container_lives(made, count)
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
    if figures:
        print(f"\n{table(figures)}")


if __name__ == "__main__":
    sys.exit(main())
