"""Removing a directory tree without ever following a symlink.

Not shutil.rmtree: that module imports five compression libraries, and it recurses once per
level, which a container that nests its directories deeply enough turns into a crash.
"""

from __future__ import annotations

import os
from typing import Final

from uvmd.linux import mounts

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_DEEPEST: Final = 64


def remove_tree(path: str) -> None:
    """Remove ``path`` and everything below it; a missing path is fine.

    ``path`` may also be a file or a symlink, which is removed itself. Goes on after errors and
    raises the first one.
    """
    try:
        # An empty one takes no descriptor: an undo may come for want of them.
        os.rmdir(path)
        return
    except OSError:
        pass  # what is below comes to the same end, or names what is wrong
    try:
        top = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    except NotADirectoryError:  # O_DIRECTORY wins over ELOOP for a symlink
        os.unlink(path)
        return
    errors: list[OSError] = []
    try:
        # Trees deeper than _DEEPEST are moved up to the top in pieces, one round a piece.
        while _empty(top, top, 0, errors):
            pass
    finally:
        os.close(top)
    if errors:
        raise errors[0]
    os.rmdir(path)


def remove_tree_beneath(path: str, root: str = "/") -> None:
    """As :func:`remove_tree`; raises OSError, ELOOP, too if a parent below ``root`` is a symlink."""
    try:
        with mounts.parent_beneath(path, root) as where:
            remove_tree(where)
    except FileNotFoundError:
        return
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def _empty(fd: int, top: int, depth: int, errors: list[OSError]) -> bool:
    """Remove the entries of ``fd``; tell whether deep pieces were moved to the top."""
    moved = False
    with os.scandir(fd) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        try:
            if not is_directory:
                os.unlink(name, dir_fd=fd)
                continue
            if depth >= _DEEPEST and _move_up(name, fd, top):
                moved = True
                continue
            child = os.open(name, _DIRECTORY, dir_fd=fd)
            try:
                moved |= _empty(child, top, depth + 1, errors)
            finally:
                os.close(child)
            os.rmdir(name, dir_fd=fd)
        except FileNotFoundError:
            continue
        except OSError as error:
            errors.append(error)
    return moved


def _move_up(name: str, fd: int, top: int) -> bool:
    unique = f".uvmd-removing-{os.urandom(8).hex()}"
    try:
        os.rename(name, unique, src_dir_fd=fd, dst_dir_fd=top)
    except OSError:
        return False  # an overlay may refuse to rename a directory; go on by recursion
    return True
