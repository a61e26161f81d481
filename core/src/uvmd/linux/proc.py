"""What /proc and sysinfo say about processes, memory and mounts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_OCTAL: Final = re.compile(r"\\([0-7]{3})")


def total_memory_bytes() -> int:
    """Return the machine's memory, as sysinfo(2) counts it (glibc asks sysinfo for this value)."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def start_time(pid: int) -> int:
    """Return the start time of a process in clock ticks since boot; 0 if there is no such process.

    Field 22 of /proc/PID/stat (proc(5)): with the pid it names a process for good.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return parse_start_time(file.read(1024))
    except (OSError, ValueError):
        return 0


def parse_start_time(stat: bytes) -> int:
    """Take field 22 out of a line of /proc/PID/stat. Raises ValueError."""
    # The command in field 2 may hold spaces and parentheses; the last ")" ends it.
    fields = stat[stat.rindex(b")") + 1 :].split()
    if len(fields) < 20:
        raise ValueError("short line in /proc/PID/stat")
    return int(fields[19])


def shares_namespace(pid: int, name: str) -> bool:
    """Tell whether a process is in this one's namespace of a name (``net``, ``pid``; namespaces(7)).

    Raises OSError.
    """
    return os.path.samefile(f"/proc/{pid}/ns/{name}", f"/proc/self/ns/{name}")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo."""

    target: str
    fstype: str
    source: str
    options: str  # of the mount, then of the superblock


def unescape(text: str) -> str:
    """Undo the octal escapes that mountinfo uses for space, tab, newline and backslash."""
    if "\\" not in text:
        return text
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def parse_mountinfo(text: str) -> Iterator[Mount]:
    """Yield the mounts of a /proc/PID/mountinfo text, in its order; odd lines are skipped."""
    for line in text.splitlines():
        left, dash, right = line.partition(" - ")
        head, tail = left.split(" "), right.split(" ")
        if not dash or len(head) < 6 or len(tail) < 2:
            continue
        super_options = tail[2] if len(tail) > 2 else ""
        yield Mount(unescape(head[4]), tail[0], unescape(tail[1]), f"{head[5]},{super_options}")


def mounts() -> list[Mount]:
    """Return the mounts that this process sees."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return list(parse_mountinfo(file.read()))


def mounts_at_or_below(path: str) -> list[str]:
    """Return the targets of mounts at ``path`` or below it, by whole components."""
    below = path.rstrip("/") + "/"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        text = file.read()
    # Most often nothing is mounted there: one search instead of a parse of every line. A name
    # with an escape in it is not found that way, so those texts are always parsed.
    if path not in text and "\\" not in text:
        return []
    return [m.target for m in parse_mountinfo(text) if m.target == path or m.target.startswith(below)]


def root_is_initramfs(mount_table: list[Mount]) -> bool:
    """Tell whether ``/`` is the kernel's initial ramfs, on which pivot_root(2) fails."""
    roots = [mount for mount in mount_table if mount.target == "/"]
    return bool(roots) and roots[-1].fstype == "rootfs"
