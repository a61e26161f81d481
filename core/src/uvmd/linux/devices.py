"""Device nodes of the VM."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

# Spec containers.md 7.5: what a privileged container makes for itself, or must not share.
_SKIPPED_DIRECTORIES: Final = frozenset({"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"})
_SKIPPED_FILES: Final = frozenset({"console"})


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A block or character device: what the runtime needs to make the same node."""

    path: str
    type: str  # "b" or "c"
    major: int
    minor: int
    uid: int
    gid: int


def _from_stat(path: str, status: os.stat_result) -> DeviceNode | None:
    if stat.S_ISBLK(status.st_mode):
        kind = "b"
    elif stat.S_ISCHR(status.st_mode):
        kind = "c"
    else:
        return None
    return DeviceNode(
        path, kind, os.major(status.st_rdev), os.minor(status.st_rdev), status.st_uid, status.st_gid
    )


def find_devices(directory: str = "/dev") -> Iterator[DeviceNode]:
    """Yield every device node below ``directory``, sorted by path; vanished entries are skipped."""
    with os.scandir(directory) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            if entry.name not in _SKIPPED_DIRECTORIES:
                yield from find_devices(entry.path)
        elif entry.name not in _SKIPPED_FILES:
            try:
                node = _from_stat(entry.path, entry.stat(follow_symlinks=False))
            except FileNotFoundError:
                continue
            if node is not None:
                yield node
