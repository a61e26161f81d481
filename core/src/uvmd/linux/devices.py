"""Device nodes of the VM."""

from __future__ import annotations

import errno
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


def find_device(path: str) -> DeviceNode:
    """Return the device node at a path, not through a symlink.

    Raises:
        OSError: ENOENT, or ENODEV for something that is no device.
    """
    node = _from_stat(path, os.lstat(path))
    if node is None:
        raise OSError(errno.ENODEV, "is no device", path)
    return node


def find_devices_of(sysfs: str, sys_root: str = "/sys", dev_root: str = "/dev") -> list[DeviceNode]:
    """Return the device nodes whose device lies at or below a resolved folder of sysfs."""
    below = sysfs.rstrip("/") + "/"
    found = []
    for node in find_devices(dev_root):
        kind = "block" if node.type == "b" else "char"
        where = os.path.realpath(f"{sys_root}/dev/{kind}/{node.major}:{node.minor}")
        if where == sysfs or where.startswith(below):
            found.append(node)
    return found
