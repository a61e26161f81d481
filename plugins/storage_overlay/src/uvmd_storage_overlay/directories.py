"""Directories at paths that a host chose: opened and made without following symlinks."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable
from typing import Final

from uvmd.api import Keep, Undo
from uvmd.errors import Failed
from uvmd.linux import mount_points, mounts, paths, trees

log = logging.getLogger(__name__)

#: As the reference makes every directory here; that of ``upper`` is the container's ``/``.
MODE: Final = 0o755


class Opener:
    """Opens what is there by descriptors, from one of ``/``."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        keep(self._root)

    def open(self, path: str, what: str) -> int:
        """Open a directory. Raises Failed."""
        try:
            fd = paths.openat_beneath(self._root, path[1:], os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            raise Failed(f"{what} {path}: {told(error)}") from error
        self._keep(fd)
        return fd

    def known_on_the_way(self, path: str) -> paths.Known | None:
        """Open as much of a path as is there, and for which no file system must be asked."""
        known = paths.known_on_the_way(self._root, path[1:])
        if known is not None:
            self._keep(known.fd)
        return known

    def open_known(self, layers: Iterable[str]) -> list[int]:
        """Open directories in their order, up to one for which a file system must be asked, or that fails."""
        opened: list[int] = []
        relatives = (path[1:] for path in layers)
        try:
            for fd in paths.open_known_beneath(self._root, relatives, os.O_PATH | os.O_DIRECTORY):
                self._keep(fd)
                opened.append(fd)
        except OSError:
            pass
        return opened


def make(
    path: str, what: str, undo: Undo, keep: Keep, known: paths.Known | None = None
) -> tuple[int, int]:
    """Open a directory, made with its parents where it is missing; ``known`` is one above it.

    Returns the descriptor, and how many directories were made; an undo removes those that
    are empty by then. Raises Failed.
    """
    try:
        fd, made = _make(path, known)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _tell_space(path)
        raise Failed(f"{what} {path}: {told(error)}") from error
    keep(fd)
    if made:
        undo.callback(mount_points.remove_directories, made, step=f"remove {made[0]}")
    return fd, len(made)


def _make(path: str, known: paths.Known | None) -> tuple[int, list[str]]:
    try:
        return paths.ensure_directory_beneath("/", path[1:], MODE, known)
    except FileNotFoundError:
        # Another request's undo took away a parent that we had just found there.
        return paths.ensure_directory_beneath("/", path[1:], MODE)


def empty_work(path: str) -> None:
    """Remove what the kernel has made in an overlay's work directory; only for one of our making."""
    with mounts.parent_beneath(path) as where:
        for name in ("work", "index"):
            trees.remove_tree(f"{where}/{name}")


def told(error: OSError) -> str:
    """The error's text, as errors of ours quote it."""
    return (error.strerror or str(error)).lower()


def _tell_space(path: str) -> None:
    """Say in the log what the full file system looks like; the host's answer stays as it is."""
    folder = path
    while folder != "/":
        folder = os.path.dirname(folder)
        try:
            about = os.statvfs(folder)
        except OSError:
            continue
        log.warning(
            "no space for a directory",
            extra={
                "folder": folder,
                "free_bytes": about.f_bavail * about.f_frsize,
                "size_bytes": about.f_blocks * about.f_frsize,
                "free_inodes": about.f_favail,
                "inodes": about.f_files,
            },
        )
        return
