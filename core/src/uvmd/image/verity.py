"""dm-verity as it stands behind a layer's filesystem: superblock, hash tree, root digest.

Spec storage.md 6.2 to 6.4: SHA-256, 4096-byte blocks, a salt of 32 zero bytes; the same tree
that ``veritysetup format --salt <64 zeros>`` makes. Pure: bytes in, bytes out. Reading it is
``uvmd.linux.verity``'s part, which the guest uses too.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import Final

from uvmd.image.content import BLOCK

DIGEST_BYTES: Final = 32
SALT: Final = bytes(32)
ZERO_BLOCK: Final = bytes(BLOCK)
#: Signature, version, hash type, UUID, algorithm, block sizes, data blocks, salt size, salt.
_SUPERBLOCK: Final = struct.Struct("<8sII16s32sIIQH6x256s168x")

Digest = Callable[[bytes | memoryview], bytes]


def salted_digest(salt: bytes) -> Digest:
    """Return the function that digests a block."""
    salted = hashlib.sha256(salt).copy

    def digest(block: bytes | memoryview) -> bytes:
        one = salted()
        one.update(block)
        return one.digest()

    return digest


digest_of: Final = salted_digest(SALT)
ZERO_DIGEST: Final = digest_of(ZERO_BLOCK)


def encode_superblock(uuid: bytes, data_blocks: int) -> bytes:
    """Return the block behind the filesystem, in which the superblock stands."""
    packed = _SUPERBLOCK.pack(
        *(b"verity", 1, 1, uuid, b"sha256", BLOCK, BLOCK, data_blocks, len(SALT), SALT),
    )
    return packed.ljust(BLOCK, b"\0")


def level_blocks(data_blocks: int) -> list[int]:
    """Return how many blocks each level of the tree over so many data blocks has, top first."""
    levels = [-(-data_blocks * DIGEST_BYTES // BLOCK)]
    while levels[0] > 1:
        levels.insert(0, -(-levels[0] * DIGEST_BYTES // BLOCK))
    return levels


def tree_levels(leaves: bytes | bytearray) -> list[bytes]:
    """Return the levels of the tree over the data blocks' digests, as they are stored: top first."""
    levels = [_whole_blocks(leaves)]
    while len(levels[0]) > BLOCK:
        below = memoryview(levels[0])
        levels.insert(
            0,
            _whole_blocks(b"".join(digest_of(below[at : at + BLOCK]) for at in range(0, len(below), BLOCK))),
        )
    return levels


def _whole_blocks(digests: bytes | bytearray) -> bytes:
    return bytes(digests).ljust(-(-len(digests) // BLOCK) * BLOCK, b"\0")
