"""The file that also gets a container's output (spec containers.md 7.11)."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from uvmd.linux import paths

# 16.32: readable like any log, writable by root alone; the reference's modes hang on the umask.
_DIRECTORY_MODE: Final = 0o755
_FILE_MODE: Final = 0o644

# Non-blocking: nothing that the container put there may hold the daemon up.
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_TRIES: Final = 10


def open_tee(directory: str, relative: str) -> int:
    """Open ``directory/relative`` for appending, making it and its parents; close-on-exec.

    The container may write to the directory if it is mounted there, so no symlink below it is
    followed, and only a regular file is written.

    Raises:
        OSError: ELOOP for a symlink on the way, EINVAL for something that is no file.
    """
    parent, _, name = relative.rpartition("/")
    if parent:
        directory_fd, _ = paths.ensure_directory_beneath(directory, parent, _DIRECTORY_MODE)
    else:
        directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fd = _open_file(directory_fd, name)
    finally:
        os.close(directory_fd)
    return fd


def _open_file(directory_fd: int, name: str) -> int:
    for _ in range(_TRIES):
        try:
            fd = _open_existing(directory_fd, name)
        except FileNotFoundError:
            try:
                fd = os.open(name, _FLAGS | os.O_CREAT | os.O_EXCL, _FILE_MODE, dir_fd=directory_fd)
            except FileExistsError:  # the container makes it and removes it
                continue
        os.fchmod(fd, _FILE_MODE)  # the daemon's umask is 077
        os.set_blocking(fd, True)
        return fd
    raise OSError(errno.EEXIST, "it comes and goes", name)


def _open_existing(directory_fd: int, name: str) -> int:
    """Look before opening: a device, a terminal or a fifo may act on the open alone."""
    found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)
    try:
        mode = os.fstat(found).st_mode
        if stat.S_ISLNK(mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", name)
        return os.open(f"/proc/self/fd/{found}", _FLAGS)
    finally:
        os.close(found)
