"""The kernel's notices about memory: kills in a cgroup, and a group that uses too much.

Version 1 tells through an eventfd that is registered in ``cgroup.event_control``
(Documentation/admin-guide/cgroup-v1/memory.rst 9 and 10), version 2 by waking who polls
``memory.events``. A notice is a reason to look; what counts is what the files say then.
"""

from __future__ import annotations

import os
import select
from typing import Final, NamedTuple

from uvmd.linux.cgroups import ROOT, Cgroups, read_file
from uvmd.linux.stat_files import UNLIMITED, read_number, read_pairs

# Version 1 has a counter that is full of pages instead of a word for "none".
_NO_LIMIT: Final = 1 << 62


class Memory(NamedTuple):
    """What a group uses, has used at most and may use, in bytes; None: not known, no limit."""

    usage: int | None
    peak: int | None
    limit: int | None


class Notice:
    """A descriptor that becomes ready when there is a reason to look."""

    def __init__(self, fd: int, mask: int) -> None:
        self.fd = fd
        self.mask = mask
        self.closed = False

    def clear(self) -> None:
        """Have it become ready again only by what happens from now on."""
        try:
            if self.mask & select.EPOLLPRI:
                os.pread(self.fd, 4096, 0)
            else:
                os.read(self.fd, 8)
        except OSError:
            return  # nothing was there, or the group is gone: the look will tell

    def close(self) -> None:
        """Stop listening; a second time does nothing."""
        if not self.closed:
            self.closed = True
            os.close(self.fd)


def directory(cgroups: Cgroups, path: str) -> str:
    """Return where the memory files of a group are.

    Raises OSError: this machine has no memory controller.
    """
    if cgroups.version == 2:
        return (cgroups.unified or ROOT) + path
    top = cgroups.hierarchies.get("memory")
    if top is None:
        raise FileNotFoundError(2, "no memory controller is mounted", ROOT)
    return top + path


def notice_of_kills(cgroups: Cgroups, path: str) -> Notice:
    """Listen for the kernel's kills in a group. Raises OSError."""
    where = directory(cgroups, path)
    if cgroups.version == 2:
        return _polled(f"{where}/memory.events")
    return _registered(where, "memory.oom_control")


def notice_of_usage(cgroups: Cgroups, path: str, threshold_bytes: int) -> Notice:
    """Listen for a group's usage to go over a threshold. Raises OSError.

    Version 2 has no such notice but that of ``memory.high``, which also slows the group
    down: whoever listens lifts it with :func:`set_high` at the first notice.
    """
    where = directory(cgroups, path)
    if cgroups.version == 2:
        set_high(cgroups, path, threshold_bytes)
        return _polled(f"{where}/memory.events")
    return _registered(where, "memory.usage_in_bytes", str(threshold_bytes))


def set_high(cgroups: Cgroups, path: str, limit_bytes: int | None) -> None:
    """Set or lift (None) the soft limit of a version 2 group. Raises OSError."""
    _write(f"{directory(cgroups, path)}/memory.high", "max" if limit_bytes is None else str(limit_bytes))


def kills(cgroups: Cgroups, path: str) -> int:
    """Return how many processes of a group the kernel has killed for lack of memory. Raises OSError."""
    name = "memory.events" if cgroups.version == 2 else "memory.oom_control"
    return read_pairs(f"{directory(cgroups, path)}/{name}").get("oom_kill", 0)


def memory(cgroups: Cgroups, path: str) -> Memory:
    """Return what a group uses and may use. Never fails: the group may be going."""
    two = cgroups.version == 2
    names = (
        ("memory.current", "memory.peak", "memory.max")
        if two
        else ("memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.limit_in_bytes")
    )
    usage, peak, limit = (_number(f"{directory(cgroups, path)}/{name}") for name in names)
    unlimited = limit is None or limit == UNLIMITED or limit >= _NO_LIMIT
    return Memory(usage, peak, None if unlimited else limit)


def _number(path: str) -> int | None:
    try:
        return read_number(path)
    except (OSError, ValueError):
        return None


def _polled(path: str) -> Notice:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # The kernel wakes for what comes after the last read.
        os.pread(fd, 4096, 0)
    except BaseException:
        os.close(fd)
        raise
    return Notice(fd, select.EPOLLPRI)


def _registered(where: str, name: str, argument: str = "") -> Notice:
    told = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        about = os.open(f"{where}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _write(f"{where}/cgroup.event_control", f"{told} {about} {argument}".rstrip())
        finally:
            os.close(about)
    except BaseException:
        os.close(told)
        raise
    return Notice(told, select.EPOLLIN)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def own_group(cgroups: Cgroups, text: bytes | None = None) -> str:
    """Return the group that this process's memory is counted in (/proc/self/cgroup)."""
    lines = (read_file("/proc/self/cgroup") if text is None else text).decode(errors="surrogateescape")
    for line in lines.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if (number == "0" and cgroups.version == 2) or "memory" in controllers.split(","):
            return path
    return "/"
