"""The superblock and the group descriptors: packing ours, reading anybody's."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from uvmd.image.content import BLOCK
from uvmd.image.errors import BadImage

OFFSET: Final = 1024
SIZE: Final = 1024
MAGIC: Final = 0xEF53
INODE_BYTES: Final = 256
INODES_PER_BLOCK: Final = BLOCK // INODE_BYTES
EXTRA_BYTES: Final = 32
FIRST_INODE: Final = 11
ROOT_INODE: Final = 2
#: One bitmap block has a bit for each block, or inode, of a group.
MAX_PER_GROUP: Final = BLOCK * 8
DESCRIPTOR_BYTES: Final = 32
LABEL: Final = b"uvmd-layer"

# Features, by the names of tune2fs.
COMPAT_EXT_ATTR: Final = 0x0008
COMPAT_SPARSE_SUPER2: Final = 0x0200
INCOMPAT_FILETYPE: Final = 0x0002
INCOMPAT_EXTENTS: Final = 0x0040
INCOMPAT_FLEX_BG: Final = 0x0200
RO_COMPAT_LARGE_FILE: Final = 0x0002
RO_COMPAT_HUGE_FILE: Final = 0x0008
RO_COMPAT_DIR_NLINK: Final = 0x0020
RO_COMPAT_EXTRA_ISIZE: Final = 0x0040
RO_COMPAT_READONLY: Final = 0x1000

_COMPAT: Final = COMPAT_EXT_ATTR | COMPAT_SPARSE_SUPER2
_INCOMPAT: Final = INCOMPAT_FILETYPE | INCOMPAT_EXTENTS | INCOMPAT_FLEX_BG
_RO_COMPAT: Final = (
    RO_COMPAT_LARGE_FILE
    | RO_COMPAT_HUGE_FILE
    | RO_COMPAT_DIR_NLINK
    | RO_COMPAT_EXTRA_ISIZE
    | RO_COMPAT_READONLY
)
_LOG_BLOCK_SIZE: Final = 2
_CLEAN: Final = 1
_ERRORS_CONTINUE: Final = 1
_NEVER: Final = 0xFFFF
_DYNAMIC_REVISION: Final = 1
#: user_xattr and acl, as mke2fs sets them.
_DEFAULT_MOUNT_OPTIONS: Final = 0x000C
_LOG_GROUPS_PER_FLEX: Final = 4


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a filesystem is divided."""

    blocks: int
    groups: int
    blocks_per_group: int
    inodes_per_group: int

    @property
    def inodes(self) -> int:
        return self.groups * self.inodes_per_group

    def blocks_in(self, group: int) -> int:
        """Return the blocks of a group; the last one is shorter."""
        return min(self.blocks_per_group, self.blocks - group * self.blocks_per_group)


def encode_superblock(geometry: Geometry, *, free_inodes: int, uuid: bytes) -> bytes:
    """Return the 1024 bytes. All times in it are zero, so the day does not matter."""
    block = bytearray(SIZE)
    put = struct.pack_into
    put("<IIIII", block, 0x00, geometry.inodes, geometry.blocks, 0, 0, free_inodes)
    put("<III", block, 0x14, 0, _LOG_BLOCK_SIZE, _LOG_BLOCK_SIZE)
    put("<III", block, 0x20, geometry.blocks_per_group, geometry.blocks_per_group, geometry.inodes_per_group)
    put("<HHHHH", block, 0x34, 0, _NEVER, MAGIC, _CLEAN, _ERRORS_CONTINUE)
    put("<I", block, 0x4C, _DYNAMIC_REVISION)
    put("<IHH", block, 0x54, FIRST_INODE, INODE_BYTES, 0)
    put("<III16s16s", block, 0x5C, _COMPAT, _INCOMPAT, _RO_COMPAT, uuid, LABEL)
    put("<I", block, 0x100, _DEFAULT_MOUNT_OPTIONS)
    put("<HH", block, 0x15C, EXTRA_BYTES, EXTRA_BYTES)
    put("<B", block, 0x174, _LOG_GROUPS_PER_FLEX)
    return bytes(block)


def encode_descriptor(
    block_bitmap: int, inode_bitmap: int, inode_table: int, free_inodes: int, directories: int
) -> bytes:
    """Return a group's descriptor; no block of ours is free."""
    return struct.pack("<IIIHHH14x", block_bitmap, inode_bitmap, inode_table, 0, free_inodes, directories)


def encode_bitmap(used: int, valid: int) -> bytes:
    """Return a bitmap whose first *used* bits are set, and those past *valid*, which do not exist."""
    bits = (1 << used) - 1
    past = ((1 << (MAX_PER_GROUP - valid)) - 1) << valid
    return (bits | past).to_bytes(BLOCK, "little")


@dataclass(frozen=True, slots=True)
class Found:
    """What of a superblock tells what a file is; ours or another tool's."""

    block_size: int
    blocks: int
    inodes: int
    free_inodes: int
    uuid: bytes
    label: str
    read_only: bool
    journal: bool

    @property
    def bytes(self) -> int:
        """The filesystem's length: the low half of the block count, as guests read it (spec 6.1)."""
        return self.block_size * self.blocks


def parse_superblock(block: bytes) -> Found:
    """Read the 1024 bytes at offset 1024 of a filesystem.

    Raises:
        BadImage: they are no ext4 superblock.
    """
    if len(block) < SIZE:
        raise BadImage("failed to read ext4 superblock: the file is too short")
    inodes, blocks = struct.unpack_from("<II", block, 0)
    (free_inodes,) = struct.unpack_from("<I", block, 0x10)
    (log_block_size,) = struct.unpack_from("<I", block, 0x18)
    (magic,) = struct.unpack_from("<H", block, 0x38)
    compat, _, ro_compat, uuid, label = struct.unpack_from("<III16s16s", block, 0x5C)
    if magic != MAGIC:
        raise BadImage("not an ext4 file system: its superblock has another magic number")
    if log_block_size > 6:
        raise BadImage(f"the ext4 superblock claims blocks of 1024 << {log_block_size} bytes")
    return Found(
        block_size=1024 << log_block_size,
        blocks=blocks,
        inodes=inodes,
        free_inodes=free_inodes,
        uuid=uuid,
        label=label.rstrip(b"\0").decode("utf-8", "backslashreplace"),
        read_only=bool(ro_compat & RO_COMPAT_READONLY),
        journal=bool(compat & 0x0004),
    )
