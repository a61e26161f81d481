"""Writing small files whole, removing files that may be gone, closing many."""

from __future__ import annotations

import os
from collections.abc import Iterable


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data`` and close the descriptor, whatever happens.

    Raises OSError; ENOSPC comes with the write that finds no room at all, after a short one.
    """
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)


def write_whole(path: str, data: bytes) -> None:
    """Write a file for its owner alone, in place of what was there; whole, or there is none.

    Raises OSError, which names the path. A full disk gets back the room of a half-written one.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, data)
    except OSError as error:
        unlink_if_there(path)
        raise OSError(error.errno, error.strerror, path) from error


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors that are ours; those with consecutive numbers by one call."""
    first = end = -1
    for fd in sorted(fds):
        if fd != end:
            if first >= 0:
                os.closerange(first, end)
            first = fd
        end = fd + 1
    if first >= 0:
        os.closerange(first, end)


def unlink_if_there(path: str) -> None:
    """Remove a file; a missing one is fine."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
