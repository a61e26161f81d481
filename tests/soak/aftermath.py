"""What must hold after a bad day: nothing is left, nobody died, the log explains itself."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from bench.report import Figure
from support.daemon import Daemon, wait_until
from support.leaks import Snapshot, assert_nothing_left, rss_kib

#: Of daemon and monitor, in MiB.
Size = tuple[float, float]
#: A process's memory may grow by this much between two looks at it.
GROWTH = 1.05
#: The same where the first look comes soon after the start: not everything is warm.
SOON = 1.5
#: Errors that a host has caused, and that are worth a line.
CAUSED_BY_HOSTS = (
    "bad frame header, closing the bridge connection",
    "an output has failed, closing it",
)


@dataclass(frozen=True, slots=True)
class Said:
    """A log, counted: ``odd`` are lines that no request explains."""

    lines: int
    warnings: Counter[str]
    odd: list[str]


def read_log(daemon: Daemon, explained: Iterable[str] = CAUSED_BY_HOSTS) -> Said:
    """Look at every line.

    Raises:
        AssertionError: one is not what a host can read.
    """
    known, warnings, odd, count = set(explained), Counter[str](), [], 0
    with daemon.log_path.open("rb") as log:
        for line in log:
            count += 1
            entry = json.loads(line)
            assert {"time", "level", "msg"} <= entry.keys(), line
            if entry["level"] == "warning":
                warnings[entry["msg"]] += 1
            # A stack is shown for what nobody has planned.
            if "stack" in entry or (entry["level"] == "error" and entry["msg"] not in known):
                odd.append(line.decode(errors="replace")[:600])
    return Said(count, warnings, odd)


class Watch:
    """The same two processes from now on, with what they hold and need."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._before = Snapshot.settled(daemon)
        self._pids = daemon.monitor_pid, daemon.daemon_pid

    def assert_alive(self) -> None:
        """The monitor runs, and the daemon is the one that there was."""
        daemon = self._daemon
        assert daemon.process.poll() is None, daemon.describe()
        assert (daemon.monitor_pid, daemon.daemon_pid) == self._pids, daemon.describe()

    def assert_nothing_left(self) -> None:
        """Mounts, cgroups, descriptors, processes, files and threads are as they were."""
        self.assert_alive()
        # A plugin's state is there from its first change on.
        folder = self._daemon.run_dir
        states = {str(path.relative_to(folder)) for path in (folder / "plugins").iterdir()}
        assert_nothing_left(
            self._daemon, replace(self._before, run_files=self._before.run_files | states), 15
        )

    def wait_for_idle_threads(self) -> None:
        """A pool keeps its threads for 30 s; after that there are as many as before."""
        threads = self._before.daemon_threads
        wait_until(lambda: Snapshot.take(self._daemon).daemon_threads <= threads, 60, "idle threads end")

    def look(self) -> Size:
        """How large both processes are."""
        daemon = self._daemon
        return rss_kib(daemon.daemon_pid) / 1024, rss_kib(daemon.monitor_pid) / 1024


def growth(name: str, before: Sequence[Size], after: Sequence[Size], bar: float = GROWTH) -> Iterator[Figure]:
    """How much larger both processes are: medians, since the largest requests come and go."""
    for index, who in enumerate(("daemon", "monitor")):
        old, new = (statistics.median(size[index] for size in sizes) for sizes in (before, after))
        sizes = f"{old:.1f} MiB, then {new:.1f} MiB"
        yield Figure(f"{name}: memory of the {who}, of what it was", bar, new / old, "", sizes)


def log_figure(name: str, daemon: Daemon, explained: Iterable[str] = CAUSED_BY_HOSTS) -> Figure:
    """How many lines of the log nothing explains; they are shown."""
    said = read_log(daemon, explained)
    for line in said.odd[:10]:
        print(f"  unexplained: {line}")
    warned = ", ".join(f"{count} x {text}" for text, count in said.warnings.most_common(3))
    beside = f"of {said.lines:,} lines" + (f"; warnings: {warned}" if warned else "")
    return Figure(f"{name}: lines of the log that nothing explains", 0, len(said.odd), "", beside)
