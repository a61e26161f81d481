"""Inodes of 256 bytes, with the fields that ext4 added behind ext2's 128."""

from __future__ import annotations

import struct
from typing import Final

from uvmd.image.ext4.superblock import EXTRA_BYTES, INODE_BYTES

EXTENTS_FLAG: Final = 0x80000
#: EXT4_LINK_MAX; a directory with more says 1, which means "not counted".
MAX_LINKS: Final = 65000
#: A symbolic link's target that is shorter stands in the inode.
INLINE_TARGET_BYTES: Final = 60
_FIELDS: Final = struct.Struct("<HHIIIIIHHII4x60s4xIIIHHHH4xH2xIIIII8x")
#: Seconds that the 34 bits of an ext4 time can say: 1901 to 2446.
_FIRST_S: Final = -(1 << 31)
_LAST_S: Final = (1 << 34) + _FIRST_S - 1


def encode_time(seconds: int) -> tuple[int, int]:
    """Return a time as (seconds, extra field); what ext4 cannot say becomes the nearest it can."""
    seconds = min(max(seconds, _FIRST_S), _LAST_S)
    low = seconds & 0xFFFFFFFF
    # The upper bits count from the *signed* low half: see ext4_encode_extra_time().
    signed = low - (1 << 32) if low & 0x80000000 else low
    return low, ((seconds - signed) >> 32) & 3


def encode_device(major: int, minor: int) -> bytes:
    """Return i_block of a device node: the old 16 bits where they do, else the new 32."""
    if major < 256 and minor < 256:
        return struct.pack("<II", major << 8 | minor, 0)
    return struct.pack("<II", 0, (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12)


def encode_inode(
    *,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    links: int,
    blocks: int,
    flags: int,
    block: bytes,
    xattr_block: int,
    inline_xattrs: bytes,
) -> bytes:
    """Return one inode. Every time in it is the mtime: the others are the builder's, not the file's.

    Args:
        blocks: 512-byte sectors that it occupies, its extent tree and attributes included.
        block: the 60 bytes of i_block.
    """
    seconds, extra = encode_time(mtime)
    fields = _FIELDS.pack(
        *(mode, uid & 0xFFFF, size & 0xFFFFFFFF, seconds, seconds, seconds, 0, gid & 0xFFFF, links),
        *(blocks & 0xFFFFFFFF, flags, block, xattr_block, size >> 32, 0),
        *(blocks >> 32, 0, uid >> 16, gid >> 16, EXTRA_BYTES),
        *(extra, extra, extra, seconds, extra),
    )
    return (fields + inline_xattrs).ljust(INODE_BYTES, b"\0")
