"""Where the time of a start goes, for docs/start-up.md: the timeline, and what is imported.

    make profile ARGS='--top 30'

Both come from the real thing: `uvmd serve` with a host that listens, and the same once more
with the daemon under `-X importtime`, whose figures are larger than without the profiler.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
from collections import defaultdict
from datetime import datetime
from pathlib import Path

import uvmd
from support import machine
from support.daemon import Daemon

LINE = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| (\s*)(\S+)")
#: Log lines that mark a point in time, and what lies behind it then.
MARKS = {
    "daemon started": "`uvmd` script, then the monitor in its place; the daemon is spawned",
    "the bridge is up": "the daemon's interpreter and imports; the host is dialled",
    "request": "the rest of the daemon's start; Negotiate is answered",
}


def timeline(count: int) -> list[tuple[str, float]]:
    """Median milliseconds from exec to each mark."""
    points: dict[str, list[float]] = defaultdict(list)
    for number in range(count):
        daemon = Daemon()
        try:
            began = time.time()
            daemon.start()
            daemon.connect().close()
            daemon.stop()
            for line in daemon.log_lines():
                if line["msg"] in MARKS and len(points[line["msg"]]) <= number:
                    # Nanoseconds are more than fromisoformat takes.
                    moment = datetime.fromisoformat(line["time"][:26] + "+00:00").timestamp()
                    points[line["msg"]].append((moment - began) * 1000)
        finally:
            daemon.close()
    return [(name, statistics.median(points[name])) for name in MARKS]


def imports() -> list[tuple[str, int]]:
    """Each module that was imported before Negotiate was answered, with its own microseconds."""
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
    parser = argparse.ArgumentParser(description="Where the time of a start goes.")
    parser.add_argument("--top", type=int, default=20)
    asked = parser.parse_args()
    print("| until then | ms since exec | ms of it |\n| --- | ---: | ---: |")
    last = 0.0
    for name, at in timeline(20):
        print(f"| {MARKS[name]} | {at:.0f} | {at - last:.0f} |")
        last = at
    modules = imports()
    rooms: dict[str, list[int]] = defaultdict(list)
    for name, own in modules:
        rooms[room(name)].append(own)
    print(f"\n{len(modules)} modules, {sum(own for _, own in modules) / 1000:.0f} ms under the profiler\n")
    print("| room or package | modules | ms |\n| --- | ---: | ---: |")
    for name, owns in sorted(rooms.items(), key=lambda entry: -sum(entry[1]))[: asked.top]:
        print(f"| `{name}` | {len(owns)} | {sum(owns) / 1000:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
