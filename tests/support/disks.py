"""What is on a disk: superblocks, and layers with their hash tree as a host's converter makes them."""

from __future__ import annotations

import hashlib
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

BLOCK = 4096
SALT = bytes(32)


def ext4_superblock(
    blocks: int, log_block_size: int = 2, *, journal: bool = False, incompatible: int = 0, high: int = 0
) -> bytes:
    """The 1024 bytes at byte 1024 of an ext4 file system, as far as they are read."""
    block = bytearray(1024)
    struct.pack_into("<I", block, 0x04, blocks)
    struct.pack_into("<I", block, 0x18, log_block_size)
    struct.pack_into("<H", block, 0x38, 0xEF53)
    struct.pack_into("<I", block, 0x5C, 4 if journal else 0)
    struct.pack_into("<I", block, 0x60, incompatible)
    struct.pack_into("<I", block, 0x150, high)
    return bytes(block)


def ext4(blocks: int = 4, *, journal: bool = False) -> bytes:
    """A file system by its superblock; the rest is zeros."""
    return (bytes(1024) + ext4_superblock(blocks, journal=journal)).ljust(blocks * BLOCK, b"\0")


def verity_superblock(blocks: int, salt: bytes = SALT, **fields: int | bytes) -> bytes:
    """The 512 bytes behind the file system; ``fields`` replaces some by name."""
    values: dict[str, int | bytes] = {
        "signature": b"verity\0\0",
        "version": 1,
        "hash_type": 1,
        "uuid": bytes(16),
        "algorithm": b"sha256",
        "data_block_size": BLOCK,
        "hash_block_size": BLOCK,
        "data_blocks": blocks,
        "salt_size": len(salt),
        "salt": salt,
    }
    values.update(fields)
    return struct.pack("<8sII16s32sIIQH6x256s168x", *values.values())


def hash_tree(data: bytes, salt: bytes = SALT) -> bytes:
    """The levels of the tree, the top one first; its first block is what the root digest is of."""
    levels: list[bytes] = []
    level = data
    while True:
        hashes = b"".join(
            hashlib.sha256(salt + level[at : at + BLOCK]).digest() for at in range(0, len(level), BLOCK)
        )
        level = hashes.ljust(-(-len(hashes) // BLOCK) * BLOCK, b"\0")
        levels.insert(0, level)
        if len(level) == BLOCK:
            return b"".join(levels)


def root_digest(data: bytes, salt: bytes = SALT) -> str:
    """What the policy is asked about."""
    return hashlib.sha256(salt + hash_tree(data, salt)[:BLOCK]).hexdigest()


def layer(data: bytes, salt: bytes = SALT, **fields: int | bytes) -> bytes:
    """A file system with superblock and tree behind it."""
    superblock = verity_superblock(len(data) // BLOCK, salt, **fields).ljust(BLOCK, b"\0")
    return data + superblock + hash_tree(data, salt)


def real_ext4(path: Path, mib: int = 8, content: str = "in the layer") -> bytes:
    """Make a real file system with one file, ``file``; return its bytes."""
    folder = path.with_suffix(".d")
    folder.mkdir()
    (folder / "file").write_text(content)
    command = ["mkfs.ext4", "-q", "-F", "-b", str(BLOCK), "-O", "^has_journal", "-d", folder, path, f"{mib}M"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path.read_bytes()


def partitioned(parts: Sequence[bytes], first_sector: int = 2048) -> bytes:
    """A disk with an old-style partition table and these partitions, each at a whole MiB."""
    table, disk, sector = bytearray(512), bytearray(first_sector * 512), first_sector
    for number, part in enumerate(parts):
        sectors = -(-len(part) // (1 << 20)) * 2048
        struct.pack_into("<B3xB3xII", table, 446 + 16 * number, 0, 0x83, sector, sectors)
        disk += part.ljust(sectors * 512, b"\0")
        sector += sectors
    table[510:512] = b"\x55\xaa"
    disk[:512] = table
    return bytes(disk)
