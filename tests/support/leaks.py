"""What a daemon holds of the machine, before and after."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from support import machine, rootfs
from support.daemon import Daemon, children, command_line


def mounts(daemon: Daemon) -> Counter[str]:
    """Mount points that the monitor sees where a daemon could leave one, with their number.

    Others mount and unmount on the same machine; what is theirs says nothing. After the
    monitor's end: those that we see.
    """
    places = (str(daemon.folder), "/run/", str(rootfs.shared()))
    seen_by = daemon.monitor_pid if daemon.exit_status is None else "self"
    points = (line.split()[4] for line in Path(f"/proc/{seen_by}/mountinfo").read_text().splitlines())
    return Counter(point for point in points if point.startswith(places))


def cgroups(below: str) -> set[str]:
    found = set()
    for hierarchy in machine.cgroup_hierarchies():
        root = hierarchy / below.lstrip("/")
        found |= {str(folder) for folder in root.rglob("*") if folder.is_dir()}
    return found


def descriptors(pid: int) -> Counter[str]:
    """Kinds of open descriptors; numbers of sockets and pipes say nothing and are left out."""
    found: Counter[str] = Counter()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found[os.readlink(entry).partition(":[")[0]] += 1
    return found


def descriptors_of_daemon(daemon: Daemon) -> Counter[str]:
    """As :func:`descriptors`; what the first change opens in the run directory stays open, once."""
    found = descriptors(daemon.daemon_pid)
    found.subtract({what for what in found if what.startswith(f"{daemon.run_dir}/")})
    return +found


def descriptors_here() -> int:
    """How many descriptors this process has open.

    Files of state do not count: they stay open as long as who keeps them is there, which in a
    run of many tests may be any of those before.
    """
    return sum(count for what, count in descriptors(os.getpid()).items() if ".json" not in what)


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def _kib(path: Path, key: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    raise AssertionError(f"no {key} in {path}")


def rss_kib(pid: int) -> int:
    return _kib(Path(f"/proc/{pid}/status"), "VmRSS:")


def pss_kib(pid: int) -> int:
    return _kib(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")


def processes(below: int) -> list[str]:
    """The whole tree below a process, as command lines."""
    found = []
    for pid in children(below):
        found.append(" ".join(command_line(pid)[:6]))
        found += processes(pid)
    return sorted(found)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that must be the same when the containers are gone."""

    mounts: Counter[str]
    cgroups: set[str]
    monitor_descriptors: Counter[str]
    daemon_descriptors: Counter[str]
    monitor_threads: int
    processes: list[str]
    run_files: set[str]
    bundle_files: set[str]
    #: Grows with the first requests (pools start threads on demand) and is compared apart.
    daemon_threads: int = field(compare=False)
    monitor_rss_kib: int = field(compare=False)
    daemon_rss_kib: int = field(compare=False)

    @classmethod
    def take(cls, daemon: Daemon) -> Snapshot:
        monitor, decider = daemon.monitor_pid, daemon.daemon_pid
        return cls(
            mounts=mounts(daemon),
            cgroups=cgroups(daemon.pods),
            monitor_descriptors=descriptors(monitor),
            daemon_descriptors=descriptors_of_daemon(daemon),
            monitor_threads=threads(monitor),
            processes=processes(monitor),
            run_files=files(daemon.run_dir),
            bundle_files=files(daemon.bundles),
            daemon_threads=threads(decider),
            monitor_rss_kib=rss_kib(monitor),
            daemon_rss_kib=rss_kib(decider),
        )

    @classmethod
    def settled(cls, daemon: Daemon, timeout_s: float = 5) -> Snapshot:
        """A snapshot that is the same a moment later: what was on its way out is out."""
        deadline = time.monotonic() + timeout_s
        before = cls.take(daemon)
        while True:
            time.sleep(0.2)
            after = cls.take(daemon)
            if not before.differences(after) or time.monotonic() > deadline:
                return after
            before = after

    def differences(self, after: Snapshot) -> list[str]:
        """What came and what went, one line each."""
        lines = []
        for name in ("mounts", "monitor_descriptors", "daemon_descriptors"):
            old, new = getattr(self, name), getattr(after, name)
            lines += [f"{name}: +{n} {what}" for what, n in (new - old).items()]
            lines += [f"{name}: -{n} {what}" for what, n in (old - new).items()]
        for name in ("cgroups", "run_files", "bundle_files"):
            old_set, new_set = getattr(self, name), getattr(after, name)
            lines += [f"{name}: + {what}" for what in sorted(new_set - old_set)]
            lines += [f"{name}: - {what}" for what in sorted(old_set - new_set)]
        if self.processes != after.processes:
            lines.append(f"processes: {self.processes} became {after.processes}")
        if self.monitor_threads != after.monitor_threads:
            lines.append(f"monitor_threads: {self.monitor_threads} became {after.monitor_threads}")
        return lines


def assert_nothing_left(daemon: Daemon, before: Snapshot, timeout_s: float = 5) -> None:
    """Compare with ``before``; what is on its way out gets a moment."""
    deadline = time.monotonic() + timeout_s
    while lines := before.differences(Snapshot.take(daemon)):
        assert time.monotonic() < deadline, "left behind:\n" + "\n".join(lines)
        time.sleep(0.05)
