"""A file tree in memory: what goes into one image, before anything is numbered or placed.

Nothing is ever extracted onto this machine, so a hostile path has nowhere to go; it is
refused all the same, because a guest would mount it. Kept out: where entries come from
(``directory``, ``tars``), what whiteouts mean (``layers``), how ext4 writes them down.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from uvmd.image.content import Content
from uvmd.image.errors import BadSource

if TYPE_CHECKING:
    from uvmd.image.checking import Check

#: A path as its components, without ``.`` and ``..``; empty for the root.
Path = tuple[bytes, ...]

#: EXT4_NAME_LEN, and what Linux lets a program name (PATH_MAX, less the NUL).
MAX_NAME_BYTES: Final = 255
MAX_PATH_BYTES: Final = 4095
MAX_ID: Final = (1 << 32) - 1
#: The kernel's device numbers: 12 bits of major, 20 of minor.
MAX_MAJOR: Final = (1 << 12) - 1
MAX_MINOR: Final = (1 << 20) - 1


@dataclass(slots=True, eq=False)
class Inode:
    """One file of any kind; hard links are one inode under several names."""

    mode: int
    uid: int = 0
    gid: int = 0
    #: Whole seconds: most tars have no finer times, and a tree and its tars are to give one image.
    mtime: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    content: Content | None = None
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    children: dict[bytes, Inode] = field(default_factory=dict)
    #: A directory that no entry described; its attributes are made up.
    implied: bool = False

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_whiteout(self) -> bool:
        """An overlay's mark that the name below is gone: a character device 0:0."""
        return stat.S_ISCHR(self.mode) and self.device == (0, 0)


def implied_directory() -> Inode:
    """Return the directory that stands where a path needs one and no entry described it."""
    return Inode(mode=stat.S_IFDIR | 0o755, implied=True)


def parse_path(name: bytes, what: str) -> Path:
    """Split a name from an archive; leading slashes and ``./`` mean the tree's root.

    Raises:
        BadSource: it is empty, leaves the tree with ``..``, or cannot exist on Linux.
    """
    if not name:
        raise BadSource(f"{what} has an empty name")
    if b"\0" in name:
        raise BadSource(f"{what} {show(name)} has a NUL byte in its name")
    parts = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
    if b".." in parts:
        raise BadSource(f"{what} {show(name)} has '..' in its path, which could leave the tree: refused")
    if len(name) > MAX_PATH_BYTES:
        raise BadSource(f"{what} {show(name)} is {len(name)} bytes long; Linux allows {MAX_PATH_BYTES}")
    for part in parts:
        if len(part) > MAX_NAME_BYTES:
            raise BadSource(
                f"{what} {show(name)} has a name of {len(part)} bytes; ext4 allows {MAX_NAME_BYTES}"
            )
    return parts


def show(name: bytes | Path) -> str:
    """Return a name for a message: cut when long, with odd bytes escaped."""
    raw = b"/".join(name) if isinstance(name, tuple) else name
    text = raw[:200].decode("utf-8", "backslashreplace")
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return f"'{text}...'" if len(raw) > 200 else f"'{text}'"


class Tree:
    """Entries by path, in whatever order they come; ``finish()`` ends the building.

    Later entries replace earlier ones, as extracting would: a directory keeps its children
    when it is described again, anything else takes the place of what was there.
    """

    def __init__(self) -> None:
        self.root = implied_directory()
        self.warnings: list[str] = []
        #: Digests that must prove right before what is made of the tree counts.
        self.checks: list[Check] = []
        self._pending: dict[Path, Path] = {}

    def find(self, path: Path) -> Inode | None:
        """Return the inode at *path*, or None."""
        here = self.root
        for part in path:
            found = here.children.get(part)
            if found is None:
                return None
            here = found
        return here

    def put(self, path: Path, inode: Inode) -> None:
        """Add an entry; directories on the way that are missing are made up.

        Raises:
            BadSource: something on the way is no directory.
        """
        self._pending.pop(path, None)
        if not path:
            if not inode.is_directory:
                raise BadSource("the root of the tree is not a directory")
            inode.children, self.root = self.root.children, inode
            return
        parent = self.make_directory(path[:-1])
        before = parent.children.get(path[-1])
        if before is not None and before.is_directory and inode.is_directory:
            inode.children = before.children
        parent.children[path[-1]] = inode

    def make_directory(self, path: Path) -> Inode:
        """Return the directory at *path*; what is missing of it is made up.

        Raises:
            BadSource: something on the way is no directory.
        """
        here = self.root
        for depth, part in enumerate(path, 1):
            found = here.children.get(part)
            if found is None:
                found = here.children[part] = implied_directory()
            elif not found.is_directory:
                kind = "a symbolic link" if stat.S_ISLNK(found.mode) else "not a directory"
                raise BadSource(f"something lies below {show(path[:depth])}, which is {kind} in this layer")
            here = found
        return here

    def link(self, path: Path, target: Path) -> None:
        """Add a hard link. Its target may come later, so that the order of entries does not matter."""
        found = self.find(target)
        if found is None or target in self._pending:
            self._pending[path] = target
        elif path != target:
            self._put_link(path, target, found)

    def finish(self) -> None:
        """Resolve the links whose targets came later.

        Raises:
            BadSource: a target is missing, or is a directory.
        """
        while self._pending:
            ready = [path for path, target in self._pending.items() if target not in self._pending]
            if not ready:
                path, target = next(iter(self._pending.items()))
                raise BadSource(f"the hard links {show(path)} and {show(target)} point at each other")
            for path in ready:
                target = self._pending.pop(path)
                found = self.find(target)
                if found is None:
                    raise BadSource(
                        f"hard link {show(path)} points at {show(target)}, which is not in this tree or layer"
                    )
                self._put_link(path, target, found)

    def clamp_mtime(self, seconds: int) -> None:
        """Make times after *seconds* that one: files that a build made are as old as what it was given."""
        for _, inode in self.walk():
            inode.mtime = min(inode.mtime, seconds)

    def walk(self) -> Iterator[tuple[Path, Inode]]:
        """Yield every name with its inode: the root, then depth first, names in byte order."""
        stack: list[tuple[Path, Inode]] = [((), self.root)]
        while stack:
            path, inode = stack.pop()
            yield path, inode
            for name in sorted(inode.children, reverse=True):
                stack.append(((*path, name), inode.children[name]))

    def _put_link(self, path: Path, target: Path, found: Inode) -> None:
        if found.is_directory:
            raise BadSource(f"hard link {show(path)} points at {show(target)}, which is a directory")
        self.put(path, found)
