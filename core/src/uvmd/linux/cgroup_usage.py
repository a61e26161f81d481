"""What a cgroup uses right now, in a handful of numbers: for tables and metrics of many containers.

The whole statistics of one container (``cgroup_stats``) take thirty files; this takes six.
A file or a controller that is not there counts as 0, as does a limit that is none.
"""

from __future__ import annotations

import errno
import os
from typing import Final, NamedTuple

from uvmd.linux.cgroups import ROOT, Cgroups
from uvmd.linux.stat_files import number

#: What a limit reads that is none: 2^63 rounded down to a page, or ``max``.
_NO_LIMIT = 1 << 60
_GONE = (errno.ENOENT, errno.ENODEV, errno.ENOTDIR)

#: CPU, memory, its limit, processes, events of memory, block devices.
_V2_FILES: Final = (
    "cpu.stat",
    "memory.current",
    "memory.max",
    "pids.current",
    "memory.events",
    "io.stat",
)
_V1_FILES: Final = (
    ("cpuacct", "cpuacct.usage"),
    ("memory", "memory.usage_in_bytes"),
    ("memory", "memory.limit_in_bytes"),
    ("pids", "pids.current"),
    ("memory", "memory.oom_control"),
    ("blkio", "blkio.throttle.io_service_bytes"),
)
#: Descriptors that one reader holds.
FILES: Final = len(_V2_FILES)


class Usage(NamedTuple):
    """Times in nanoseconds and sizes in bytes; ``read_bytes`` and ``written_bytes`` of block devices."""

    cpu_ns: int
    memory_bytes: int
    memory_limit_bytes: int
    processes: int
    oom_kills: int
    read_bytes: int
    written_bytes: int


class UsageReader:
    """The files of one group, held open: opening them takes eight times as long as reading them again.

    For one thread at a time. What is not there when it is made counts as 0 for good; a group
    that vanishes meanwhile uses nothing. Open files do not keep a group from being removed.

    Raises:
        OSError: a file is there and cannot be opened.
    """

    __slots__ = ("_files", "_unified")

    def __init__(self, cgroups: Cgroups, path: str) -> None:
        self._unified = cgroups.version == 2
        #: Descriptor and path.
        self._files: list[tuple[int, str]] = []
        try:
            for name in _paths(cgroups, path):
                self._files.append((_open(name), name))
        except BaseException:
            self.close()
            raise

    def read(self) -> Usage:
        """Return what the group uses now.

        Raises:
            OSError: a file cannot be read.
        """
        cpu, memory, limit, processes, events, moved = [_text(fd, name) for fd, name in self._files]
        most = number(limit)
        sums = _device_sums(moved) if self._unified else _v1_sums(moved)
        return Usage(
            _value(cpu, b"usage_usec") * 1000 if self._unified else number(cpu),
            number(memory),
            0 if most >= _NO_LIMIT else most,
            number(processes),
            _value(events, b"oom_kill"),
            *sums,
        )

    def close(self) -> None:
        """Let go of the files."""
        while self._files:
            fd, _ = self._files.pop()
            if fd >= 0:
                os.close(fd)


def read_usage(cgroups: Cgroups, path: str) -> Usage:
    """Return what the group ``path`` uses; a group that has vanished uses nothing.

    Raises:
        OSError: a file is there and cannot be read.
    """
    reader = UsageReader(cgroups, path)
    try:
        return reader.read()
    finally:
        reader.close()


def _paths(cgroups: Cgroups, path: str) -> list[str]:
    if cgroups.version == 2:
        return [f"{cgroups.unified or ROOT}{path}/{name}" for name in _V2_FILES]
    tops = cgroups.hierarchies
    return [f"{tops.get(controller, '/nowhere')}{path}/{name}" for controller, name in _V1_FILES]


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _GONE:
            return -1
        raise


def _text(fd: int, path: str) -> bytes:
    if fd < 0:
        return b""
    try:
        data = os.pread(fd, 16384, 0)
        if len(data) >= 4096:  # such files come in at most a page a read
            while more := os.pread(fd, 65536, len(data)):
                data += more
        return data
    except OSError as error:
        if error.errno in _GONE:
            return b""
        raise OSError(error.errno, error.strerror, path) from error


def _value(text: bytes, name: bytes) -> int:
    """The number of a line ``name value``, 0 if there is none."""
    for line in text.split(b"\n"):
        key, _, value = line.partition(b" ")
        if key == name and value.isdigit():
            return int(value)
    return 0


def _device_sums(text: bytes) -> tuple[int, int]:
    """Read and written of ``8:0 rbytes=1 wbytes=2 ...``, over all devices."""
    sums = {b"rbytes": 0, b"wbytes": 0}
    for word in text.split():
        name, _, value = word.partition(b"=")
        if name in sums and value.isdigit():
            sums[name] += int(value)
    return sums[b"rbytes"], sums[b"wbytes"]


def _v1_sums(text: bytes) -> tuple[int, int]:
    """Read and written of ``8:0 Read 1``, over all devices."""
    sums = {b"Read": 0, b"Write": 0}
    for line in text.split(b"\n"):
        words = line.split()
        if len(words) == 3 and words[1] in sums and words[2].isdigit():
            sums[words[1]] += int(words[2])
    return sums[b"Read"], sums[b"Write"]
