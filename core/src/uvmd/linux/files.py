"""Writing small files whole, and removing files that may be gone."""

from __future__ import annotations

import os


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


def unlink_if_there(path: str) -> None:
    """Remove a file; a missing one is fine."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
