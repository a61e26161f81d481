"""Blocks of directories: linear, names in byte order, no index."""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterable
from typing import Final

from uvmd.image.content import BLOCK

_HEAD: Final = struct.Struct("<IHBB")
_TYPES: Final = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFLNK: 7,
}


def _length(name: bytes) -> int:
    return _HEAD.size + len(name) + -len(name) % 4


def blocks_needed(names: Iterable[bytes]) -> int:
    """Return the blocks of a directory with these names, in this order, beside ``.`` and ``..``."""
    blocks, used = 1, _length(b".") + _length(b"..")
    for name in names:
        length = _length(name)
        if used + length > BLOCK:
            blocks, used = blocks + 1, 0
        used += length
    return blocks


def encode_directory(own: int, parent: int, entries: Iterable[tuple[bytes, int, int]]) -> bytes:
    """Return a directory's blocks.

    Args:
        own: the directory's inode number.
        parent: the number of the directory in which it is; the root is in itself.
        entries: (name, inode number, mode) in the order of ``blocks_needed``.
    """
    blocks = bytearray()
    current: list[tuple[bytes, int, int]] = []
    used = 0
    for entry in ((b".", own, stat.S_IFDIR), (b"..", parent, stat.S_IFDIR), *entries):
        length = _length(entry[0])
        if used + length > BLOCK:
            blocks += _block(current, used)
            current, used = [], 0
        current.append(entry)
        used += length
    return bytes(blocks + _block(current, used))


def _block(entries: list[tuple[bytes, int, int]], used: int) -> bytes:
    packed = bytearray()
    for index, (name, number, mode) in enumerate(entries):
        length = _length(name)
        # The last entry owns what is left of its block: there are no gaps in a directory.
        claimed = length + (BLOCK - used if index == len(entries) - 1 else 0)
        packed += _HEAD.pack(number, claimed, len(name), _TYPES[stat.S_IFMT(mode)])
        packed += name.ljust(length - _HEAD.size, b"\0")
    return bytes(packed.ljust(BLOCK, b"\0"))
