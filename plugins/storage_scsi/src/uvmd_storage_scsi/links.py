"""The symlink that a disk in block-device mode is: made and removed, never followed."""

from __future__ import annotations

import errno
import os
import posixpath

from uvmd.errors import Refused
from uvmd.linux import mounts, paths


def remove(path: str, source: str) -> None:
    """Remove the link at a path that a host chose; fine if it is gone.

    Raises:
        Refused: what is there is not the link that was made.
        OSError: it cannot be removed.
    """
    try:
        with mounts.parent_beneath(path) as where:
            if _target(where) != source:
                raise Refused(f"{path} is no longer the link that was made there")
            os.unlink(where)
    except FileNotFoundError:
        return


def _target(path: str) -> str | None:
    """Where a link points; None for anything else."""
    try:
        return os.readlink(path)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise


def put_back(path: str, source: str) -> None:
    """Make the link again, and the directories above it. Raises OSError."""
    parent, name = posixpath.split(path)
    fd, _ = paths.ensure_directory_beneath("/", parent[1:] or ".", 0o700)
    try:
        os.symlink(source, name, dir_fd=fd)
    finally:
        os.close(fd)
