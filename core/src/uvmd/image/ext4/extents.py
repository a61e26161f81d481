"""Extent trees: which blocks of the device hold which blocks of a file."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final

from uvmd.image.content import BLOCK

#: A longer initialised extent would read as an unwritten one.
MAX_LENGTH: Final = 32768
_MAGIC: Final = 0xF30A
_HEADER: Final = struct.Struct("<HHHHI")
_EXTENT: Final = struct.Struct("<IHHI")
_INDEX: Final = struct.Struct("<IIHH")
#: Entries of 12 bytes behind a header of 12: in the inode's 60 bytes, and in a block.
IN_INODE: Final = 4
IN_BLOCK: Final = (BLOCK - _HEADER.size) // _EXTENT.size

#: (first logical block, count)
Run = tuple[int, int]


def split(runs: Iterable[Run]) -> list[Run]:
    """Cut runs to what one extent can say."""
    return [
        (first + done, min(MAX_LENGTH, count - done))
        for first, count in runs
        for done in range(0, count, MAX_LENGTH)
    ]


def blocks_needed(extents: int) -> int:
    """Return how many blocks the tree over so many extents takes outside the inode."""
    total = 0
    while extents > IN_INODE:
        extents = -(-extents // IN_BLOCK)
        total += extents
    return total


def encode_tree(extents: Sequence[Run], physical: int, tree: int) -> tuple[bytes, list[bytes]]:
    """Return the inode's 60 bytes and the tree's blocks.

    Args:
        extents: what ``split()`` returned.
        physical: the device's block of the first extent; the others follow it without a gap.
        tree: the device's block of the first block of the tree; the others follow.
    """
    entries: list[tuple[int, bytes]] = []
    for first, count in extents:
        entries.append((first, _EXTENT.pack(first, count, 0, physical)))
        physical += count
    blocks: list[bytes] = []
    depth = 0
    while len(entries) > IN_INODE:
        above = []
        for at in range(0, len(entries), IN_BLOCK):
            part = entries[at : at + IN_BLOCK]
            above.append((part[0][0], _INDEX.pack(part[0][0], tree + len(blocks), 0, 0)))
            blocks.append(_node(part, IN_BLOCK, depth).ljust(BLOCK, b"\0"))
        entries, depth = above, depth + 1
    return _node(entries, IN_INODE, depth).ljust(60, b"\0"), blocks


def _node(entries: Sequence[tuple[int, bytes]], room: int, depth: int) -> bytes:
    head = _HEADER.pack(_MAGIC, len(entries), room, depth, 0)
    return head + b"".join(entry for _, entry in entries)
