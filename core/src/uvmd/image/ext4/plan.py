"""Where everything goes: inode numbers, blocks, groups. Reads nothing, writes nothing.

The order on the device: superblock, descriptors, all block bitmaps, all inode bitmaps, all
inode tables (flex_bg lets them lie together), then directories, long symbolic links,
attribute blocks and extent trees, then the files' data without a gap. Numbers and places
follow the walk of the tree, so they do not depend on the order in which entries came.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from uvmd.image.content import BLOCK
from uvmd.image.errors import BadSource
from uvmd.image.ext4 import directories, extents
from uvmd.image.ext4.extents import Run
from uvmd.image.ext4.inodes import INLINE_TARGET_BYTES, MAX_LINKS
from uvmd.image.ext4.superblock import (
    DESCRIPTOR_BYTES,
    FIRST_INODE,
    INODES_PER_BLOCK,
    MAX_PER_GROUP,
    ROOT_INODE,
    Geometry,
)
from uvmd.image.ext4.xattrs import Encoded, encode_xattrs
from uvmd.image.scan import Scanned
from uvmd.image.tree import Inode, Tree, show

#: Guests read the low half of the block count only (spec storage.md 6.1).
_MAX_BLOCKS: Final = (1 << 32) - 1
#: With smaller groups there is room for more inodes than blocks of data call for.
_GROUP_SIZES: Final = (32768, 16384, 8192, 4096, 2048)
_NOTHING: Final = Scanned()
_NO_XATTRS: Final = Encoded()


@dataclass(slots=True)
class Placed:
    """One inode with its number and blocks; places count from the start of their area."""

    inode: Inode
    number: int
    #: The directory in which a directory is.
    parent: int
    xattrs: Encoded
    scanned: Scanned = _NOTHING
    links: int = 1
    #: Blocks of a directory or of a long link's target.
    body_blocks: int = 0
    extents: list[Run] = field(default_factory=list)
    meta_at: int = 0
    data_at: int = 0

    @property
    def tree_blocks(self) -> int:
        return extents.blocks_needed(len(self.extents))

    @property
    def meta_blocks(self) -> int:
        return self.body_blocks + bool(self.xattrs.block) + self.tree_blocks


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole filesystem, placed."""

    geometry: Geometry
    #: In the order of their numbers: the root, then from FIRST_INODE on.
    placed: list[Placed]
    #: Inode numbers by ``id()`` of the inode.
    numbers: Mapping[int, int]
    descriptor_blocks: int
    meta_blocks: int
    data_blocks: int

    @property
    def block_bitmaps(self) -> int:
        return 1 + self.descriptor_blocks

    @property
    def inode_bitmaps(self) -> int:
        return self.block_bitmaps + self.geometry.groups

    @property
    def inode_tables(self) -> int:
        return self.inode_bitmaps + self.geometry.groups

    @property
    def meta(self) -> int:
        return self.inode_tables + self.geometry.inodes // INODES_PER_BLOCK

    @property
    def data(self) -> int:
        return self.meta + self.meta_blocks

    @property
    def used_inodes(self) -> int:
        return FIRST_INODE - 1 + len(self.placed) - 1


def plan(tree: Tree, scanned: Mapping[int, Scanned]) -> Plan:
    """Place a tree.

    Args:
        scanned: by ``id()`` of each inode with data.

    Raises:
        BadSource: something does not fit into ext4.
    """
    placed, numbers = _numbered(tree, scanned)
    meta = data = 0
    for one in placed:
        one.meta_at, one.data_at = meta, data
        meta += one.meta_blocks
        data += one.scanned.blocks
    geometry, descriptors = _geometry(FIRST_INODE - 1 + len(placed) - 1, meta + data)
    return Plan(geometry, placed, numbers, descriptors, meta, data)


def _numbered(tree: Tree, scanned: Mapping[int, Scanned]) -> tuple[list[Placed], dict[int, int]]:
    placed: list[Placed] = []
    index: dict[int, int] = {}
    parents = {id(tree.root): ROOT_INODE}
    for path, inode in tree.walk():
        known = index.get(id(inode))
        if known is not None:
            placed[known].links += 1
            if placed[known].links > MAX_LINKS:
                raise BadSource(f"{show(path)} is one of more than {MAX_LINKS} hard links; ext4 ends there")
            continue
        number = FIRST_INODE - 1 + len(placed) if path else ROOT_INODE
        index[id(inode)] = len(placed)
        xattrs = encode_xattrs(inode.xattrs, show(path)) if inode.xattrs else _NO_XATTRS
        one = Placed(inode, number, parents.get(id(inode), 0), xattrs)
        if inode.is_directory:
            below = [child for child in inode.children.values() if child.is_directory]
            parents.update((id(child), number) for child in below)
            one.links = 2 + len(below) if 2 + len(below) < MAX_LINKS else 1
            one.body_blocks = directories.blocks_needed(sorted(inode.children))
        elif stat.S_ISLNK(inode.mode) and len(inode.target) >= INLINE_TARGET_BYTES:
            one.body_blocks = 1
        one.scanned = scanned.get(id(inode), _NOTHING)
        runs = ((0, one.body_blocks),) if one.body_blocks else one.scanned.runs
        one.extents = extents.split(runs)
        placed.append(one)
    return placed, {key: placed[at].number for key, at in index.items()}


def _geometry(used_inodes: int, payload: int) -> tuple[Geometry, int]:
    """Return the division into groups, and the blocks of the descriptors."""
    for per_group in _GROUP_SIZES:
        # libext2fs wants room for bitmaps and a superblock beside the table of a group.
        most_inodes = min(MAX_PER_GROUP, INODES_PER_BLOCK * (per_group - 4))
        # Larger groups than must be give up here, rather than grow to hold the inodes.
        groups = 1 if per_group > _GROUP_SIZES[-1] else -(-used_inodes // most_inodes)
        while True:
            wanted = -(-used_inodes // groups)
            inodes = -(-wanted // INODES_PER_BLOCK) * INODES_PER_BLOCK
            descriptors = -(-groups * DESCRIPTOR_BYTES // BLOCK)
            total = 1 + descriptors + 2 * groups + groups * inodes // INODES_PER_BLOCK + payload
            if total <= groups * per_group:
                break
            groups = -(-total // per_group)
        if total > _MAX_BLOCKS:
            raise BadSource(f"the image would have {total} blocks of {BLOCK} bytes; 2^32 - 1 are possible")
        # More groups can mean smaller tables, and an end before the last group's begin.
        while total <= (groups - 1) * per_group:
            inodes, total = inodes + INODES_PER_BLOCK, total + groups
        if inodes <= most_inodes:
            return Geometry(total, groups, per_group, inodes), descriptors
    raise BadSource(f"the image would need {used_inodes} inodes in {total} blocks; ext4 cannot hold them")
