"""Opening paths that somebody else chose, without following what they may have planted.

Two disciplines: *beneath* refuses every symlink (paths the host names), *in root* resolves
symlinks as if the directory were ``/`` (files of a container's image). Both work on
descriptors, so that what was checked is what is used.
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


def is_clean_absolute(path: str) -> bool:
    """Tell whether ``path`` is absolute, has no NUL and is its own shortest lexical form."""
    return (
        path.startswith("/")
        and not path.startswith("//")
        and "\0" not in path
        and posixpath.normpath(path) == path
    )


def is_below(path: str, root: str) -> bool:
    """Tell whether the clean path lies strictly below the clean root, by whole components."""
    return path != root and path.startswith(root if root == "/" else root + "/")


def open_beneath(root: str, relative: str, flags: int) -> int:
    """Open ``root/relative``; no component of ``relative`` may be a symlink or ``..``.

    ``root`` itself is the operator's and may be a symlink. Raises OSError (ELOOP for a symlink).
    """
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return openat_beneath(root_fd, relative, flags)
    finally:
        os.close(root_fd)


def open_known_beneath(root_fd: int, relatives: Iterable[str], flags: int) -> Iterator[int]:
    """As :func:`openat_beneath` for several, where no file system has to be asked, which could wait.

    Raises OSError, EAGAIN too: :func:`openat_beneath` may well open it.
    """
    return map(_opener_of_known(root_fd, flags), relatives)


def _opener_of_known(root_fd: int, flags: int) -> Callable[[str], int]:
    from uvmd.linux import syscalls

    resolve = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_CACHED
    return lambda relative: syscalls.openat2(root_fd, relative, flags, resolve=resolve)


class Known(NamedTuple):
    """A directory on the way of a path: a descriptor, and of how many of its names it is."""

    fd: int
    depth: int


def known_on_the_way(root_fd: int, relative: str) -> Known | None:
    """Open the deepest directory of a path that can be opened without asking a file system.

    There may be more of it. Raises nothing.
    """
    names, open_known = relative.split("/"), _opener_of_known(root_fd, os.O_PATH | os.O_DIRECTORY)
    for depth in range(len(names), 0, -1):
        try:
            return Known(open_known("/".join(names[:depth])), depth)
        except OSError:
            continue
    return None


def openat_beneath(root_fd: int, relative: str, flags: int, mode: int = 0) -> int:
    """As :func:`open_beneath`, from a descriptor."""
    from uvmd.linux import syscalls

    try:
        return syscalls.openat2(
            root_fd,
            relative,
            flags,
            mode=mode,
            resolve=syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS,
        )
    except OSError as error:
        # A seccomp filter of an outer sandbox answers EPERM to calls it does not know.
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
    return _walk(root_fd, relative, flags, mode)


def open_in_vm(path: str, flags: int) -> int:
    """Open an absolute clean path; symlinks count only in the file system of ``/`` itself.

    What a container or a host writes to is a mount of its own, so no link of theirs is followed.
    Raises OSError, ELOOP for such a one.
    """
    from uvmd.linux import syscalls

    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return openat_beneath(root_fd, path[1:] or ".", flags)
    except OSError as refusal:
        if refusal.errno != errno.ELOOP:
            raise
        own = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_XDEV | syscalls.RESOLVE_NO_MAGICLINKS
        try:
            return syscalls.openat2(root_fd, path, flags, resolve=own)
        except OSError:
            raise refusal from None
    finally:
        os.close(root_fd)


def _walk(root_fd: int, relative: str, flags: int, mode: int) -> int:
    """Open by one component at a time: the same refusals without openat2."""
    *parents, last = relative.split("/")
    fd = os.dup(root_fd)
    try:
        for name in parents:
            _require_plain(name)
            deeper = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            os.close(fd)
            fd = deeper
        _require_plain(last)
        return os.open(last, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=fd)
    finally:
        os.close(fd)


def _require_plain(name: str) -> None:
    if name in ("", ".", ".."):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)


def ensure_directory_beneath(
    root: str, relative: str, mode: int, known: Known | None = None
) -> tuple[int, list[str]]:
    """Open the directory ``root/relative``, making what is missing with exactly ``mode``.

    Returns the descriptor and the paths that were made, outermost first. When it fails,
    what it made is gone again. ``known`` is where to begin, else that is looked for.
    """
    if known is not None:
        return _make_from(known.fd, known.depth, root, relative.split("/"), mode)
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            return openat_beneath(root_fd, relative, _DIRECTORY), []
        except FileNotFoundError:
            pass
        names = relative.split("/")
        for name in names:
            _require_plain(name)
        fd, there = _open_what_is_there(root_fd, names)
    finally:
        os.close(root_fd)
    try:
        return _make_from(fd, there, root, names, mode)
    finally:
        os.close(fd)


def _make_from(start: int, there: int, root: str, names: list[str], mode: int) -> tuple[int, list[str]]:
    """Make what is missing below a descriptor, which stays the caller's."""
    made: list[str] = []
    path = "/".join([root.rstrip("/"), *names[:there]])
    fd = start
    try:
        for name in names[there:] or ["."]:
            path = f"{path}/{name}"
            try:
                os.mkdir(name, mode, dir_fd=fd)
            except FileExistsError:
                deeper = openat_beneath(fd, name, _DIRECTORY)
            else:
                made.append(path)
                deeper = os.open(name, _DIRECTORY, dir_fd=fd)
            if fd != start:
                os.close(fd)
            fd = deeper
            if made and made[-1] == path:
                os.fchmod(fd, mode)  # the daemon's umask is 077
    except BaseException:
        if fd != start:
            os.close(fd)
        remove_empty(made)
        raise
    return fd, made


def _open_what_is_there(root_fd: int, names: list[str]) -> tuple[int, int]:
    """Open the deepest directory that exists, from below: most often the last name alone is missing.

    Returns the descriptor, and of how many names it is.
    """
    for there in range(len(names) - 1, 0, -1):
        try:
            return openat_beneath(root_fd, "/".join(names[:there]), os.O_PATH | os.O_DIRECTORY), there
        except FileNotFoundError:
            continue
    return os.dup(root_fd), 0


def remove_empty(made: list[str]) -> None:
    """Remove directories that :func:`ensure_directory_beneath` made, as far as they are empty."""
    for path in reversed(made):
        try:
            os.rmdir(path)
        except OSError:
            return


def open_in_root(root_fd: int, path: str, flags: int) -> int:
    """Open ``path`` as a process whose ``/`` is ``root_fd`` would.

    Without openat2 no symlink is followed at all, which is stricter and never looser.
    """
    from uvmd.linux import syscalls

    try:
        return syscalls.openat2(
            root_fd, path, flags, resolve=syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
        )
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
    return _walk(root_fd, path.strip("/"), flags, 0)
