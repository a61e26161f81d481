"""A tree from a directory of this machine, as it is: no names are interpreted.

What belongs to this machine and not to the tree is left out: labels of its security modules,
and every time but the mtime.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from uvmd.image.content import MAX_FILE_BYTES, FileContent, Span, changed, identity_of
from uvmd.image.errors import BadSource
from uvmd.image.ext4.xattrs import is_known
from uvmd.image.tree import Inode, Path, Tree, parse_path, show

#: Set by the machine on which the directory lies, on every file that is made there.
_MACHINES_OWN: Final = frozenset({b"security.selinux", b"security.ima", b"security.evm", b"security.SMACK64"})
_UNSUPPORTED: Final = (errno.ENOTSUP, errno.EPERM)


def read_directory(root_fd: int) -> Tree:
    """Return the tree below an open directory; the descriptor stays the caller's, and in use.

    Raises:
        BadSource: something cannot be read, or changes meanwhile.
    """
    try:
        return _read(root_fd)
    except OSError as error:
        # What can fail for a reason of its own has said so already; the rest is a race.
        raise BadSource(f"the directory cannot be read: {error}") from error


def _read(root_fd: int) -> Tree:
    tree = Tree()
    tree.put((), _inode(root_fd, (), os.fstat(root_fd)))
    links: dict[tuple[int, int], Path] = {}
    pending: list[tuple[Path, tuple[int, int]]] = [((), _key(os.fstat(root_fd)))]
    while pending:
        path, key = pending.pop()
        for name, status in _entries(root_fd, path, key):
            below = parse_path(b"/".join((*path, name)), "file")
            hard_linked = status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode)
            if hard_linked and (first := links.setdefault(_key(status), below)) != below:
                tree.link(below, first)
                continue
            tree.put(below, _inode(root_fd, below, status))
            if stat.S_ISDIR(status.st_mode):
                pending.append((below, _key(status)))
    tree.finish()
    if os.geteuid():
        tree.warnings.append("not root: attributes named trusted.* cannot be seen and are left out")
    return tree


def _key(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _entries(root_fd: int, path: Path, key: tuple[int, int]) -> list[tuple[bytes, os.stat_result]]:
    where = b"/".join(path) or b"."
    try:
        fd = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root_fd)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        # A directory on the way may have become a symbolic link since it was listed.
        if _key(os.fstat(fd)) != key:
            raise changed(where)
        with os.scandir(fd) as found:
            return [(os.fsencode(entry.name), entry.stat(follow_symlinks=False)) for entry in found]
    except FileNotFoundError as error:
        raise changed(where) from error
    finally:
        os.close(fd)


def _inode(root_fd: int, path: Path, status: os.stat_result) -> Inode:
    inode = Inode(
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=status.st_mtime_ns // 1_000_000_000,
        xattrs=_xattrs(root_fd, path),
    )
    if stat.S_ISREG(status.st_mode):
        inode.content = _content(root_fd, path, status)
    elif stat.S_ISLNK(status.st_mode):
        inode.target = os.readlink(b"/".join(path), dir_fd=root_fd)
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        inode.device = (os.major(status.st_rdev), os.minor(status.st_rdev))
    return inode


def _content(root_fd: int, path: Path, status: os.stat_result) -> FileContent:
    if status.st_size > MAX_FILE_BYTES:
        raise BadSource(f"{show(path)} has {status.st_size} bytes; ext4 allows a file {MAX_FILE_BYTES}")
    name = b"/".join(path)
    spans: tuple[Span, ...] = (Span(0, status.st_size, 0),) if status.st_size else ()
    # Holes are found here only to save reading them: blocks of zeros become holes anyway.
    if status.st_blocks * 512 < status.st_size:
        spans = _spans_of_data(root_fd, name, status)
    return FileContent(root_fd, name, status.st_size, spans, identity_of(status))


def _spans_of_data(root_fd: int, name: bytes, status: os.stat_result) -> tuple[Span, ...]:
    spans, at = [], 0
    with FileContent(root_fd, name, status.st_size, (), identity_of(status)).opened() as fd:
        while at < status.st_size:
            try:
                begin = os.lseek(fd, at, os.SEEK_DATA)
                at = min(os.lseek(fd, begin, os.SEEK_HOLE), status.st_size)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    break
                raise
            spans.append(Span(begin, at - begin, begin))
    return tuple(spans)


def _xattrs(root_fd: int, path: Path) -> dict[bytes, bytes]:
    # The calls know no dir_fd. A link is not followed; the root's own name has no last part to be one.
    where = b"/proc/self/fd/%d" % root_fd
    try:
        if not path:
            return _kept(where + b"/.")
        return _kept(where + b"/" + b"/".join(path))
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return {}
        raise _unreadable(path, error) from error


def _kept(where: bytes) -> dict[bytes, bytes]:
    found = {}
    for text in os.listxattr(where, follow_symlinks=False):
        name = os.fsencode(text)
        if name not in _MACHINES_OWN and is_known(name):
            found[name] = os.getxattr(where, name, follow_symlinks=False)
    return found


def _unreadable(path: Path, error: OSError) -> BadSource:
    hint = "; run as root" if isinstance(error, PermissionError) and os.geteuid() else ""
    return BadSource(f"cannot read {show(path) if path else 'the directory'}: {error.strerror}{hint}")
