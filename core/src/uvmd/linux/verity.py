"""dm-verity of a read-only layer: an ext4 file system with its hash tree behind it.

What is on the disk comes from the host and is believed in nothing (spec storage.md 6 and
15): the root digest that is computed here is what the policy decides about, and the kernel
then holds every block to it.

    0 … F          ext4, F = block size x block count
    F … F+4096     verity superblock, zeros
    F+4096 …       hash tree, the top block first
"""

from __future__ import annotations

import os
import re
import struct
from typing import Final, NamedTuple

from uvmd.errors import Failed
from uvmd.linux.devmapper import Target

BLOCK_SIZE: Final = 4096
_EXT4_AT: Final = 1024
_EXT4_SIZE: Final = 1024
_EXT4_MAGIC: Final = 0xEF53
_EXT4_64BIT: Final = 0x80
_SUPERBLOCK: Final = struct.Struct("<8sII16s32sIIQH6x256s168x")
_SIGNATURE: Final = b"verity\0\0"
_MAX_SALT: Final = 256
#: Below the size of a sector count in the kernel's signed 64 bits.
_MAX_BYTES: Final = 1 << 62


class VerityInfo(NamedTuple):
    """All that a table needs. Digest and salt in lower-case hexadecimal."""

    ext4_bytes: int
    version: int
    algorithm: str
    root_digest: str
    salt: str
    block_size: int
    superblock: bool


def parse_ext4_superblock(block: bytes) -> tuple[int, int]:
    """Return block size and size in bytes of the ext4 file system with this superblock.

    Raises:
        Failed: it is none, or one that cannot be.
    """
    if len(block) < _EXT4_SIZE:
        raise Failed(f"failed to read ext4 superblock: {len(block)} bytes, expected {_EXT4_SIZE}")
    (magic,) = struct.unpack_from("<H", block, 0x38)
    if magic != _EXT4_MAGIC:
        raise Failed("not an ext4 file system")
    (low,) = struct.unpack_from("<I", block, 0x04)
    (log_block_size,) = struct.unpack_from("<I", block, 0x18)
    (incompatible,) = struct.unpack_from("<I", block, 0x60)
    (high,) = struct.unpack_from("<I", block, 0x150)
    if log_block_size > 6:
        raise Failed("ext4 superblock: the block size is above 64 KiB")
    if high and not incompatible & _EXT4_64BIT:
        raise Failed("ext4 superblock: more blocks than a file system without 64bit can have")
    count = low | (high << 32 if incompatible & _EXT4_64BIT else 0)
    size = (1024 << log_block_size) * count
    if not 0 < size < _MAX_BYTES:
        raise Failed("ext4 superblock: the number of blocks is not possible")
    return 1024 << log_block_size, size


class _Superblock(NamedTuple):
    signature: bytes
    version: int
    hash_type: int
    uuid: bytes
    algorithm: bytes
    data_block_size: int
    hash_block_size: int
    data_blocks: int
    salt_size: int
    salt: bytes


def parse_verity_superblock(block: bytes, ext4_bytes: int, block_size: int) -> tuple[int, str, bytes]:
    """Return version, algorithm and salt of the superblock behind such a file system.

    Raises:
        Failed: it is none, or says something else than what we are going to ask of the
            kernel (one hash for everything, or the digest shown to the policy and the
            digest enforced would not be the same thing).
    """
    if len(block) < _SUPERBLOCK.size:
        raise Failed("failed to parse dm-verity super block: it is cut short")
    found = _Superblock(*_SUPERBLOCK.unpack_from(block))
    if found.signature != _SIGNATURE:
        raise Failed("invalid dm-verity super-block signature")
    algorithm = found.algorithm.rstrip(b"\0").decode("ascii", "replace")
    wrong = [
        f"{what} {value}, expected {expected}"
        for what, value, expected in (
            ("version", found.version, 1),
            ("hash type", found.hash_type, 1),
            ("data block size", found.data_block_size, block_size),
            ("hash block size", found.hash_block_size, block_size),
            ("data blocks", found.data_blocks, ext4_bytes // block_size),
        )
        if value != expected
    ]
    if algorithm != "sha256":
        wrong.append("an algorithm that is not sha256")
    if found.salt_size > _MAX_SALT:
        wrong.append(f"salt size {found.salt_size}, at most {_MAX_SALT}")
    if wrong:
        raise Failed(f"failed to parse dm-verity super block: {'; '.join(wrong)}")
    return found.version, algorithm, found.salt[: found.salt_size]


def read_info(device: int | str, offset: int = 0, size: int | None = None) -> VerityInfo:
    """Read from a device (an open descriptor, or a path) what its verity table must say.

    Or from the part of it that begins at ``offset`` and has ``size`` bytes.

    Raises:
        Failed: there is no ext4 file system with a hash tree on it.
    """
    if isinstance(device, int):
        return _read_info(device, offset, size)
    try:
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Failed(f"failed to read ext4 superblock: open {device}: {_text(error)}") from error
    try:
        return _read_info(fd, offset, size)
    finally:
        os.close(fd)


def _read_info(fd: int, offset: int, size: int | None) -> VerityInfo:
    import hashlib

    # Two small reads far from each other: what the kernel would read ahead is for nobody.
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    block = _read(fd, _EXT4_SIZE, offset + _EXT4_AT, "ext4 superblock")
    block_size, ext4_bytes = parse_ext4_superblock(block)
    if block_size != BLOCK_SIZE:
        raise Failed(f"dm-verity needs ext4 with blocks of {BLOCK_SIZE} bytes, these have {block_size}")
    device_bytes = os.lseek(fd, 0, os.SEEK_END) - offset if size is None else size
    if ext4_bytes + 2 * BLOCK_SIZE > device_bytes:
        raise Failed(
            f"failed to read dm-verity super block: the file system has {ext4_bytes} bytes and the device "
            f"{device_bytes}, which leaves no room for a hash tree"
        )
    # The superblock's block and the top of the tree, in one go.
    blocks = _read(fd, 2 * BLOCK_SIZE, offset + ext4_bytes, "dm-verity super block and root hash")
    version, algorithm, salt = parse_verity_superblock(blocks[:BLOCK_SIZE], ext4_bytes, block_size)
    top = blocks[BLOCK_SIZE:]
    digest = hashlib.sha256(salt + top).hexdigest()
    return VerityInfo(ext4_bytes, version, algorithm, digest, salt.hex(), block_size, True)


def _read(fd: int, size: int, at: int, what: str) -> bytes:
    try:
        block = os.pread(fd, size, at)
    except OSError as error:
        raise Failed(f"failed to read {what}: {_text(error)}") from error
    if len(block) != size:
        raise Failed(f"failed to read {what}: unexpected bytes read expected={size} actual={len(block)}")
    return block


def _text(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def table(info: VerityInfo, device: str) -> Target:
    """Return the target that holds ``device`` to the root digest; data and tree lie on it."""
    if not re.fullmatch(r"[0-9a-f]{64}", info.root_digest):
        raise ValueError("a root digest has 64 hexadecimal digits")
    blocks = info.ext4_bytes // info.block_size
    # An empty word would end the kernel's parsing; "-" is its spelling of no salt.
    params = (
        f"{info.version} {device} {device} {info.block_size} {info.block_size} {blocks} "
        f"{blocks + info.superblock} {info.algorithm} {info.root_digest} {info.salt or '-'}"
    )
    return Target(0, info.ext4_bytes // 512, "verity", params)
