"""Mounts: making them, taking them away in order, and what the kernel says is there.

A target is a path, or a descriptor of what is mounted on. For a path that a host chose
use a descriptor that :mod:`uvmd.linux.paths` opened, and :func:`unmount_beneath` to take
the mount away: neither follows a symlink that somebody planted on the way. Everything
raises OSError with the target as its file name.
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from uvmd.linux import paths
from uvmd.linux.proc import unescape

MOUNTINFO = "/proc/self/mountinfo"
_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
MNT_DETACH: Final = 2

#: Words of mount options that say how mounts propagate, and their MS_* values.
PROPAGATION: Final = {
    "unbindable": 1 << 17,
    "private": 1 << 18,
    "slave": 1 << 19,
    "shared": 1 << 20,
    "runbindable": 1 << 17 | 1 << 14,
    "rprivate": 1 << 18 | 1 << 14,
    "rslave": 1 << 19 | 1 << 14,
    "rshared": 1 << 20 | 1 << 14,
}


class MountInfo(NamedTuple):
    """One line of mountinfo, see proc_pid_mountinfo(5)."""

    id: int
    parent: int
    device: tuple[int, int]
    root: str
    target: str
    options: str
    propagation: tuple[str, ...]
    fstype: str
    source: str
    super_options: str

    @property
    def read_only(self) -> bool:
        """Whether this mount, or all of its file system, is read-only."""
        return "ro" in (*self.options.split(","), *self.super_options.split(","))


def parse_mountinfo(text: str) -> Iterator[MountInfo]:
    """Yield what each line says, in order; lines that are none are skipped."""
    # Not splitlines(): the kernel escapes none of the other characters that end a line for it.
    for line in text.split("\n"):
        left, dash, right = line.partition(" - ")
        head, tail = left.split(" "), right.split(" ")
        major, colon, minor = head[2].partition(":") if len(head) > 2 else ("", "", "")
        if not dash or len(head) < 6 or len(tail) < 2 or not colon:
            continue
        try:
            numbers = [int(text) for text in (head[0], head[1], major, minor)]
        except ValueError:
            continue
        yield MountInfo(
            numbers[0],
            numbers[1],
            (numbers[2], numbers[3]),
            unescape(head[3]),
            unescape(head[4]),
            head[5],
            tuple(head[6:]),
            tail[0],
            unescape(tail[1]),
            tail[2] if len(tail) > 2 else "",
        )


def mountinfo() -> list[MountInfo]:
    """Return every mount that this process sees, each after what it is mounted on."""
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
        return list(parse_mountinfo(file.read()))


def mounted_at(path: str) -> list[MountInfo]:
    """Return the mounts at exactly this clean path, the topmost last."""
    return [mount for mount in mountinfo() if mount.target == path]


def place(target: str | int) -> str:
    """Return a path for a target that may be a descriptor."""
    return f"/proc/self/fd/{target}" if isinstance(target, int) else target


def mount(source: str, target: str | int, fstype: str, flags: int = 0, data: str = "") -> None:
    """Mount a file system: mount(2)."""
    from uvmd.linux import syscalls

    syscalls.mount(source, place(target), fstype, flags, data)


def bind(source: str | int, target: str | int, recursive: bool = False) -> None:
    """Make a directory or file appear at another place too, with all mounts in it if asked for."""
    from uvmd.linux import syscalls

    flags = syscalls.MS_BIND | (syscalls.MS_REC if recursive else 0)
    syscalls.mount(place(source), place(target), "", flags)


def make_shared(target: str | int, recursive: bool = True) -> None:
    """Let mounts made at or below the mount ``target`` appear in its copies, and back."""
    set_propagation(target, PROPAGATION["rshared" if recursive else "shared"])


def set_propagation(target: str | int, flag: int) -> None:
    """Set one propagation of a mount; a value of ``PROPAGATION`` (two at once are EINVAL)."""
    from uvmd.linux import syscalls

    syscalls.mount("", place(target), "", flag)


def unmount(target: str, flags: int = 0) -> None:
    """Unmount the topmost mount at a path; MNT_DETACH in ``flags`` for lazily.

    The last component is not followed if it is a symlink. EINVAL: nothing is mounted there.
    """
    from uvmd.linux import syscalls

    syscalls.umount(target, flags | syscalls.UMOUNT_NOFOLLOW)


def unmount_all(target: str, max_stacked: int = 5) -> int:
    """Unmount what is stacked at a path and return how many mounts that were.

    Nothing there is zero, and no error. EBUSY: something is in use, or still mounted after
    ``max_stacked``; what is below it must not be taken for an empty directory then.
    """
    for done in range(max_stacked + 1):
        try:
            unmount(target)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
                return done
            raise
    raise OSError(errno.EBUSY, f"more than {max_stacked} mounts are stacked", target)


def detach(target: str) -> None:
    """Take a recursive bind away, with all that is mounted in it; its source stays as it is.

    The mounts in it are in step with those in the source, which would go with them. EINVAL:
    nothing is mounted there.
    """
    set_propagation(target, PROPAGATION["rprivate"])
    unmount(target, MNT_DETACH)


@contextmanager
def parent_beneath(path: str, root: str = "/") -> Iterator[str]:
    """Give another spelling of an absolute clean path, none of whose parents below ``root`` is a symlink.

    It goes by the descriptor of the parent directory: one of a mount itself would keep it busy.
    """
    parent, name = posixpath.split(path)
    if parent == root:
        fd = os.open(root, _DIRECTORY)
    else:
        fd = paths.open_beneath(root, posixpath.relpath(parent, root), _DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def unmount_beneath(path: str, max_stacked: int = 5) -> int:
    """As :func:`unmount_all`, for a path that a host chose: no parent may be a symlink."""
    try:
        with parent_beneath(path) as where:
            return unmount_all(where, max_stacked)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def unmount_tree(path: str, flags: int = 0) -> None:
    """Unmount everything at and below a clean path, the newest first.

    Goes by whole components of the real paths that mountinfo has.
    """
    below = path.rstrip("/") + "/"
    for mount in reversed(mountinfo()):
        if mount.target == path or mount.target.startswith(below):
            unmount(mount.target, flags)


# The newer interface: one option at a time, without the page that mount(2) has for all

_ATTRIBUTES: Final = ((1, 1), (2, 2), (4, 4), (8, 8))  # MS_* and MOUNT_ATTR_* of ro, nosuid, nodev, noexec


Option = tuple[str, str | int | None]


def new_mount(fstype: str, options: Sequence[Option], flags: int = 0) -> int:
    """Make a mount that is nowhere yet and return its descriptor, for :func:`attach`.

    Args:
        options: name and value in order: a text, a descriptor, or None for a bare word.
            ``("source", "overlay")`` is what mountinfo shows as the source.
        flags: MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC.

    Raises:
        OSError: ENOSYS or EPERM where the kernel (before 5.2) or a sandbox does not have
            these calls; else with what the file system itself says of it.
    """
    fd = begin_mount(fstype, options)
    try:
        return finish_mount(fd, (), flags)
    finally:
        os.close(fd)


def begin_mount(fstype: str, options: Sequence[Option]) -> int:
    """Return the descriptor of a mount that only knows options so far, for :func:`finish_mount`.

    Raises OSError as :func:`new_mount`.
    """
    from uvmd.linux import syscalls

    fd = syscalls.fsopen(fstype)
    try:
        _configure(fd, options)
    except OSError:
        os.close(fd)
        raise
    return fd


def finish_mount(fd: int, options: Sequence[Option], flags: int = 0) -> int:
    """Give what :func:`begin_mount` returned more options, and make the mount; it stays the caller's.

    Returns what :func:`new_mount` does. Raises OSError as that.
    """
    from uvmd.linux import syscalls

    _configure(fd, options if not flags & syscalls.MS_RDONLY else [*options, ("ro", None)])
    with _explained(fd):
        syscalls.fsconfig(fd, syscalls.FSCONFIG_CMD_CREATE)
        return syscalls.fsmount(fd, sum(attribute for flag, attribute in _ATTRIBUTES if flags & flag))


def _configure(fd: int, options: Sequence[Option]) -> None:
    from uvmd.linux import syscalls

    with _explained(fd):
        for name, value in options:
            if value is None:
                syscalls.fsconfig(fd, syscalls.FSCONFIG_SET_FLAG, name)
            elif isinstance(value, int):
                syscalls.fsconfig(fd, syscalls.FSCONFIG_SET_FD, name, aux=value)
            else:
                syscalls.fsconfig(fd, syscalls.FSCONFIG_SET_STRING, name, value)


@contextmanager
def _explained(fd: int) -> Iterator[None]:
    """Have what fails say what the file system says of it."""
    try:
        yield
    except OSError as error:
        said = _complaints(fd)
        raise OSError(error.errno, f"{error.strerror}{said and ': '}{said}") from None


def _complaints(fd: int) -> str:
    """What the file system logged for this descriptor: one message a read, ENODATA at the end."""
    said = []
    for _ in range(8):
        try:
            message = os.read(fd, 4096)
        except OSError:
            break
        said.append(message.decode("utf-8", "replace").strip()[2:])  # "e ", "w " or "i " in front
    return "; ".join(said)


def attach(fd: int, target: str | int) -> None:
    """Put a mount of :func:`new_mount` at a path, or onto the directory of a descriptor."""
    from uvmd.linux import syscalls

    flags = syscalls.MOVE_MOUNT_F_EMPTY_PATH
    if isinstance(target, int):
        syscalls.move_mount(fd, target, "", flags | syscalls.MOVE_MOUNT_T_EMPTY_PATH)
    else:
        syscalls.move_mount(fd, syscalls.AT_FDCWD, target, flags)
