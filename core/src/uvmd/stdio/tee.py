"""The file that also gets a container's output (spec containers.md 7.11)."""

from __future__ import annotations

import os
from typing import Final

from uvmd.linux import paths

# 16.32: readable like any log, writable by root alone; the reference's modes hang on the umask.
_DIRECTORY_MODE: Final = 0o755
_FILE_MODE: Final = 0o644


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
    import errno
    import stat

    # Non-blocking: a fifo that the container put there must not hold the daemon up.
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    fd = os.open(name, flags, _FILE_MODE, dir_fd=directory_fd)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", name)
    os.fchmod(fd, _FILE_MODE)  # the daemon's umask is 077
    os.set_blocking(fd, True)
    return fd
