"""The monitor, or the daemon, with a wall clock that a test sets: nobody else's clock moves.

    jumping_clock.py FILE monitor PATH DAEMON... | jumping_clock.py FILE daemon FLAG...

FILE holds the seconds by which the clock is wrong; the monitor, which runs without site
packages, finds uvmd in PATH. What counts the time that passes, the
monotonic clock, is the machine's.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

_FILE = sys.argv[1]


def _wrong_by() -> float:
    try:
        with open(_FILE, encoding="ascii") as file:
            return float(file.read() or 0)
    except OSError:
        return 0.0


def _jumping(real: Callable[..., Any], unit: int, clocks: tuple[int, ...]) -> Callable[..., Any]:
    def read(*which: int) -> Any:
        seen = real(*which)
        return seen if which and which[0] not in clocks else seen + type(seen)(_wrong_by() * unit)

    return read


WALL = (time.CLOCK_REALTIME, time.CLOCK_TAI)
for _name in ("time", "clock_gettime"):
    setattr(time, _name, _jumping(getattr(time, _name), 1, WALL))
    setattr(time, f"{_name}_ns", _jumping(getattr(time, f"{_name}_ns"), 10**9, WALL))


def main() -> None:
    what, rest = sys.argv[2], sys.argv[3:]
    if what == "daemon":
        from uvmd.daemon import serve

        sys.exit(serve.run(rest))
    sys.path.insert(0, rest[0])
    from uvmd.monitor import monitor

    sys.argv = ["uvmd-monitor", "--", *rest[1:]]
    sys.exit(monitor.main())


if __name__ == "__main__":
    main()
