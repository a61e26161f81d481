"""A tree from a tar archive, and what OCI's whiteouts in it say about the layers below.

A name ``.wh.NAME`` means "NAME is not there any more", ``.wh..wh..opq`` "nothing from below is
in this directory" (OCI image specification, layer.md). Nothing is extracted.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field, replace
from typing import Final

from uvmd.image.checking import Check
from uvmd.image.content import ArchiveContent, Region
from uvmd.image.errors import BadSource
from uvmd.image.tar_headers import Member, read_members
from uvmd.image.tree import Inode, Path, Tree, parse_path, show

_PREFIX: Final = b".wh."
_OPAQUE: Final = b".wh..wh..opq"
#: Other names that begin so are AUFS's own bookkeeping.
_AUFS: Final = b".wh..wh."
_TYPES: Final = {
    b"0": stat.S_IFREG,
    b"\0": stat.S_IFREG,
    b"7": stat.S_IFREG,
    b"S": stat.S_IFREG,
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"5": stat.S_IFDIR,
    b"6": stat.S_IFIFO,
}


@dataclass(slots=True)
class Layer:
    """A tree, and what it takes away from those below it."""

    tree: Tree = field(default_factory=Tree)
    #: Names that are gone; the value is the whiteout's own mtime.
    gone: dict[Path, int] = field(default_factory=dict)
    opaque: set[Path] = field(default_factory=set)


def read_tar(archive: Region, *, sealed: bool = False, check: Check | None = None) -> Layer:
    """Read a whole archive that is not compressed. The region stays in use by the tree.

    Args:
        sealed: it has a digest (see ``read_members``).
        check: what takes the digest while files are read; the tree's user requires it.

    Raises:
        BadSource: it is no tar, is cut off, or has entries that no tree can have.
    """
    layer = Layer()
    text_acls = 0
    for member in read_members(archive, sealed=sealed):
        text_acls += member.has_text_acl
        _add(layer, archive, member, check)
    layer.tree.finish()
    if check is not None:
        layer.tree.checks.append(check)
    if text_acls:
        layer.tree.warnings.append(f"{text_acls} entries have ACLs as text (SCHILY.acl), ignoring those")
    return layer


def _add(layer: Layer, archive: Region, member: Member, check: Check | None) -> None:
    path = parse_path(member.name, "entry")
    last = path[-1] if path else b""
    if last == _OPAQUE:
        layer.opaque.add(path[:-1])
        return
    if last.startswith(_AUFS) or any(part.startswith(_AUFS) for part in path[:-1]):
        return
    if last.startswith(_PREFIX):
        name = last[len(_PREFIX) :]
        if name in (b"", b".", b".."):
            raise BadSource(f"whiteout {show(path)} names nothing that could be gone")
        layer.gone[(*path[:-1], name)] = member.mtime
        return
    if member.kind == b"1":
        layer.tree.link(path, parse_path(member.target, f"the target of hard link {show(path)}"))
        return
    layer.tree.put(path, _inode(archive, member, check))


def _inode(archive: Region, member: Member, check: Check | None) -> Inode:
    kind = _TYPES.get(member.kind)
    if kind is None:
        raise BadSource(f"entry {show(member.name)} has the unknown type {member.kind!r}")
    inode = Inode(
        mode=kind | member.mode,
        uid=member.uid,
        gid=member.gid,
        mtime=member.mtime,
        xattrs=member.xattrs,
        device=member.device,
    )
    if stat.S_ISREG(kind):
        # An archive may lie within another file: a layer in the tar of a layout.
        spans = tuple(replace(span, at=archive.offset + span.at) for span in member.spans)
        inode.content = ArchiveContent(archive, member.size, spans, check)
    elif stat.S_ISLNK(kind):
        inode.mode = stat.S_IFLNK | 0o777
        inode.target = _target(member)
    return inode


def _target(member: Member) -> bytes:
    # Where a symbolic link points is the container's affair; it is stored, never followed.
    if not member.target or b"\0" in member.target:
        raise BadSource(f"symbolic link {show(member.name)} has no target")
    if len(member.target) > 4095:
        raise BadSource(f"symbolic link {show(member.name)} has a target of {len(member.target)} bytes")
    return member.target
