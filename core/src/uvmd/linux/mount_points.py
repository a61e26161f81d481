"""The directories on which something is mounted: made for it, and gone with it.

Paths here are absolute, clean and chosen by a host; none of their components is followed if
it is a symlink.
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from uvmd.errors import Failed
from uvmd.linux import mounts, paths


class Undo(Protocol):
    """Where the opposites of steps are registered: ``uvmd.api.Undo``."""

    def callback(self, function: Callable[..., object], *args: Any, step: str = "") -> None: ...


@contextmanager
def make_mount_point(path: str, undo: Undo, mode: int = 0o700) -> Iterator[int]:
    """Make what is missing of a directory and give its descriptor.

    Raises:
        OSError: ELOOP for a symlink on the way; ENOTDIR for a file, or a symlink at the end.
    """
    fd, made = _make(path, mode)
    try:
        undo.callback(remove_directories, made, step=f"remove the directory {path}")
        yield fd
    finally:
        os.close(fd)


def _make(path: str, mode: int) -> tuple[int, list[str]]:
    """Most often only the last directory is missing."""
    parent, name = posixpath.split(path)
    if parent != "/" and not mode & 0o077:  # else the daemon's umask takes bits away
        try:
            parent_fd = paths.open_beneath("/", parent[1:], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return paths.ensure_directory_beneath("/", path[1:], mode)
        try:
            os.mkdir(name, mode, dir_fd=parent_fd)
        except FileExistsError:
            pass
        else:
            try:
                return paths.openat_beneath(parent_fd, name, os.O_RDONLY | os.O_DIRECTORY), [path]
            except BaseException:
                os.rmdir(name, dir_fd=parent_fd)
                raise
        finally:
            os.close(parent_fd)
    return paths.ensure_directory_beneath("/", path[1:], mode)


def directories_of(path: str, noted: Iterable[Sequence[str]]) -> list[str]:
    """Return the directories that are to go when the last path in them goes, outermost first.

    Those that :func:`make_mount_point` is going to make, and those on the way to ``path``
    that were made for other paths and ``noted`` then.

    Raises OSError.
    """
    others = {one for made in noted for one in made if one == path or paths.is_below(path, one)}
    return sorted(others | set(_missing(path)), key=len)


def _missing(path: str) -> Iterator[str]:
    while path != "/":
        try:
            os.lstat(path)
            return
        except (FileNotFoundError, NotADirectoryError):
            yield path
            path = posixpath.dirname(path)


def remove_directories(made: Sequence[str]) -> None:
    """Remove directories that were made, outermost first in ``made``, as far as they are empty.

    One that is gone, has something in it, or is mounted on is no error; any other is raised.
    """
    for path in reversed(made):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
                return
            raise


def remove_last(path: str, count: int) -> None:
    """Remove a directory, and of those above it so many that ``count`` are gone, while empty.

    Raises:
        Failed: the file system says no.
    """
    made = [path]
    while len(made) < count:
        made.insert(0, posixpath.dirname(made[0]))
    try:
        remove_directories(made)
    except OSError as error:
        text = (error.strerror or str(error)).lower()
        raise Failed(f"removing the directory {path} failed: {text}") from error


def exists(path: str) -> bool:
    """Tell whether anything is at the path. Raises OSError, ELOOP for a symlink on the way."""
    try:
        with mounts.parent_beneath(path) as where:
            os.lstat(where)
            return True
    except (FileNotFoundError, NotADirectoryError):
        return False


def unmount_devices(path: str, devices: Iterable[tuple[int, int]]) -> None:
    """Unmount from a path whatever shows one of these devices, until something else is on top.

    Raises OSError.
    """
    ours = set(devices)
    while (there := mounts.mounted_at(path)) and there[-1].device in ours:
        with mounts.parent_beneath(path) as where:
            mounts.unmount(where)
