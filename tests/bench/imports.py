"""Where the time of a start goes: the daemon's imports, dearest first, as a table for the docs.

    PYTHONPATH=tests .venv/bin/python tests/bench/imports.py [--top N]

Runs the real monitor with a daemon under `-X importtime`, negotiates, and stops it. The
figures are somewhat larger than without the profiler.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path

import uvmd
from support import machine
from support.daemon import Daemon

LINE = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| (\s*)(\S+)")


def profile() -> list[tuple[str, int]]:
    """Each imported module and its own microseconds, in order of import."""
    daemon = Daemon()
    python = str(machine.BIN / "python")
    monitor = str(Path(uvmd.__file__).parent / "monitor" / "__main__.py")
    flags = [f"--{key}={value}" for key, value in daemon.options.items()]
    daemon.program = [python, "-I", "-S", monitor, "--", python, "-I", "-X", "importtime"]
    daemon.program += ["-m", "uvmd.daemon", *flags]
    try:
        daemon.start()
        daemon.connect().close()
        daemon.stop()
        text = daemon.log_text()
    finally:
        daemon.close()
    # What the warm-up loads after the answer comes later in the log than this line.
    before, _, _ = text.partition('"operation":"negotiate"')
    return [(name, int(own)) for own, _, _, name in LINE.findall(before)]


def room(name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "uvmd" else parts[0]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--top", type=int, default=25)
    asked = parser.parse_args()
    modules = profile()
    rooms: dict[str, list[int]] = defaultdict(list)
    for name, own in modules:
        rooms[room(name)].append(own)
    total = sum(own for _, own in modules)
    print(f"{len(modules)} modules, {total / 1000:.1f} ms in all, until Negotiate was answered\n")
    print("| room or package | modules | ms |\n| --- | ---: | ---: |")
    for name, owns in sorted(rooms.items(), key=lambda entry: -sum(entry[1]))[: asked.top]:
        print(f"| {name} | {len(owns)} | {sum(owns) / 1000:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
