"""Writes a plan down: every block of metadata, each given to a sink with its number."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from typing import Final, Protocol

from uvmd.image.content import BLOCK
from uvmd.image.ext4 import directories, extents, superblock
from uvmd.image.ext4.inodes import EXTENTS_FLAG, encode_device, encode_inode
from uvmd.image.ext4.plan import Placed, Plan
from uvmd.image.ext4.superblock import (
    DESCRIPTOR_BYTES,
    FIRST_INODE,
    INODE_BYTES,
    INODES_PER_BLOCK,
    encode_bitmap,
    encode_descriptor,
    encode_superblock,
)

_SECTORS_PER_BLOCK: Final = BLOCK // 512
#: Inodes that are given to the sink at once.
_BATCH_INODES: Final = 256 * INODES_PER_BLOCK
_RESERVED: Final = FIRST_INODE - 1


class Sink(Protocol):
    """Takes blocks; what it never got is zeros."""

    def put(self, block: int, data: bytes) -> None:
        """Take whole blocks from *block* on."""


def write_metadata(plan: Plan, sink: Sink) -> None:
    """Give the sink everything but the files' data and block 0."""
    batch = bytearray(_RESERVED * INODE_BYTES)
    first = 0
    for one in plan.placed:
        inode = _write_inode(plan, one, sink)
        if one.number < FIRST_INODE:
            batch[(one.number - 1) * INODE_BYTES : one.number * INODE_BYTES] = inode
        else:
            batch += inode
        if len(batch) == _BATCH_INODES * INODE_BYTES:
            sink.put(plan.inode_tables + first, bytes(batch))
            first += len(batch) // BLOCK
            batch.clear()
    if batch:
        sink.put(plan.inode_tables + first, _whole_blocks(batch))
    _write_groups(plan, sink)


def block_zero(plan: Plan, seal: bytes) -> bytes:
    """Return block 0, which holds the superblock.

    Args:
        seal: a digest of every other block. The UUID is made of it: two images have the same
            only when they are the same.
    """
    uuid = content_uuid(b"ext4", seal)
    free = plan.geometry.inodes - plan.used_inodes
    return (
        encode_superblock(plan.geometry, free_inodes=free, uuid=uuid)
        .rjust(superblock.OFFSET + superblock.SIZE, b"\0")
        .ljust(BLOCK, b"\0")
    )


def content_uuid(purpose: bytes, seal: bytes) -> bytes:
    """Return a UUID (version 8: made by an application's own rule) for some content."""
    raw = bytearray(hashlib.sha256(b"uvmd layer image, " + purpose + seal).digest()[:16])
    raw[6] = raw[6] & 0x0F | 0x80
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)


def _write_inode(plan: Plan, one: Placed, sink: Sink) -> bytes:
    inode = one.inode
    at = plan.meta + one.meta_at
    after_body = at + one.body_blocks
    size, block = len(inode.target), inode.target
    if inode.is_directory:
        size = one.body_blocks * BLOCK
        sink.put(at, directories.encode_directory(one.number, one.parent, _entries(plan, one)))
    elif one.body_blocks:
        sink.put(at, inode.target.ljust(BLOCK, b"\0"))
    elif inode.content is not None:
        size = inode.content.size
    elif stat.S_ISCHR(inode.mode) or stat.S_ISBLK(inode.mode):
        block = encode_device(*inode.device)
    if one.xattrs.block:
        sink.put(after_body, one.xattrs.block)
    flags = 0
    if stat.S_ISREG(inode.mode) or one.body_blocks:
        flags = EXTENTS_FLAG
        tree = after_body + bool(one.xattrs.block)
        physical = at if one.body_blocks else plan.data + one.data_at
        block, nodes = extents.encode_tree(one.extents, physical, tree)
        if nodes:
            sink.put(tree, b"".join(nodes))
    return encode_inode(
        mode=inode.mode,
        uid=inode.uid,
        gid=inode.gid,
        size=size,
        mtime=inode.mtime,
        links=one.links,
        blocks=(one.meta_blocks + one.scanned.blocks) * _SECTORS_PER_BLOCK,
        flags=flags,
        block=block,
        xattr_block=after_body if one.xattrs.block else 0,
        inline_xattrs=one.xattrs.inline,
    )


def _entries(plan: Plan, one: Placed) -> Iterator[tuple[bytes, int, int]]:
    for name in sorted(one.inode.children):
        child = one.inode.children[name]
        yield name, plan.numbers[id(child)], child.mode


def _write_groups(plan: Plan, sink: Sink) -> None:
    geometry = plan.geometry
    tables = geometry.inodes_per_group // INODES_PER_BLOCK
    directory_counts = [0] * geometry.groups
    for one in plan.placed:
        if one.inode.is_directory:
            directory_counts[(one.number - 1) // geometry.inodes_per_group] += 1
    descriptors = bytearray()
    for group in range(geometry.groups):
        used = min(max(plan.used_inodes - group * geometry.inodes_per_group, 0), geometry.inodes_per_group)
        descriptors += encode_descriptor(
            plan.block_bitmaps + group,
            plan.inode_bitmaps + group,
            plan.inode_tables + group * tables,
            geometry.inodes_per_group - used,
            directory_counts[group],
        ).ljust(DESCRIPTOR_BYTES, b"\0")
        blocks = geometry.blocks_in(group)
        sink.put(plan.block_bitmaps + group, encode_bitmap(blocks, blocks))
        sink.put(plan.inode_bitmaps + group, encode_bitmap(used, geometry.inodes_per_group))
    sink.put(1, _whole_blocks(descriptors))


def _whole_blocks(data: bytearray) -> bytes:
    return bytes(data.ljust(-(-len(data) // BLOCK) * BLOCK, b"\0"))
