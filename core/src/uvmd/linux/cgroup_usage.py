"""What a cgroup uses right now, in a handful of numbers: for tables and metrics of many containers.

The whole statistics of one container (``cgroup_stats``) take thirty files; this takes six.
A file or a controller that is not there counts as 0, as does a limit that is none.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import NamedTuple

from uvmd.linux.cgroups import ROOT, Cgroups, read_file
from uvmd.linux.stat_files import read_number, read_pairs

#: What a limit reads that is none: 2^63 rounded down to a page, or ``max``.
_NO_LIMIT = 1 << 60
_GONE = (errno.ENOENT, errno.ENODEV, errno.ENOTDIR)


class Usage(NamedTuple):
    """Times in nanoseconds and sizes in bytes; ``read_bytes`` and ``written_bytes`` of block devices."""

    cpu_ns: int
    memory_bytes: int
    memory_limit_bytes: int
    processes: int
    oom_kills: int
    read_bytes: int
    written_bytes: int


def read_usage(cgroups: Cgroups, path: str) -> Usage:
    """Return what the group ``path`` uses; a group that has vanished uses nothing.

    Raises:
        OSError: a file is there and cannot be read.
    """
    return _of_v2((cgroups.unified or ROOT) + path) if cgroups.version == 2 else _of_v1(cgroups, path)


def _of_v2(group: str) -> Usage:
    moved = _pairs(_device_lines, f"{group}/io.stat")
    return Usage(
        _pairs(read_pairs, f"{group}/cpu.stat").get("usage_usec", 0) * 1000,
        _number(f"{group}/memory.current"),
        _limit(f"{group}/memory.max"),
        _number(f"{group}/pids.current"),
        _pairs(read_pairs, f"{group}/memory.events").get("oom_kill", 0),
        moved.get("rbytes", 0),
        moved.get("wbytes", 0),
    )


def _of_v1(cgroups: Cgroups, path: str) -> Usage:
    def file(controller: str, name: str) -> str:
        return f"{cgroups.hierarchies.get(controller, '/nowhere')}{path}/{name}"

    moved = _pairs(_v1_moved, file("blkio", "blkio.throttle.io_service_bytes"))
    return Usage(
        _number(file("cpuacct", "cpuacct.usage")),
        _number(file("memory", "memory.usage_in_bytes")),
        _limit(file("memory", "memory.limit_in_bytes")),
        _number(file("pids", "pids.current")),
        _pairs(read_pairs, file("memory", "memory.oom_control")).get("oom_kill", 0),
        moved.get("Read", 0),
        moved.get("Write", 0),
    )


def _device_lines(path: str) -> dict[str, int]:
    """The sums of ``8:0 rbytes=1 wbytes=2 ...`` over all devices."""
    sums: dict[str, int] = {}
    for line in read_file(path).decode("ascii", "replace").splitlines():
        for word in line.split()[1:]:
            name, _, value = word.partition("=")
            if value.isdigit():
                sums[name] = sums.get(name, 0) + int(value)
    return sums


def _v1_moved(path: str) -> dict[str, int]:
    """The sums of ``8:0 Read 1`` over all devices."""
    sums: dict[str, int] = {}
    for line in read_file(path).decode("ascii", "replace").splitlines():
        words = line.split()
        if len(words) == 3 and words[2].isdigit():
            sums[words[1]] = sums.get(words[1], 0) + int(words[2])
    return sums


def _number(path: str) -> int:
    try:
        return read_number(path)
    except OSError as error:
        if error.errno in _GONE:
            return 0
        raise


def _limit(path: str) -> int:
    limit = _number(path)
    return 0 if limit >= _NO_LIMIT else limit


def _pairs(read: Callable[[str], dict[str, int]], path: str) -> dict[str, int]:
    try:
        return read(path)
    except OSError as error:
        if error.errno in _GONE:
            return {}
        raise
