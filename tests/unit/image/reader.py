"""Reads an ext4 image back; shares no code with what wrote it, only the kernel's documents."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BLOCK = 4096
PREFIXES = {1: b"user.", 4: b"trusted.", 6: b"security."}
WHOLE = {2: b"system.posix_acl_access", 3: b"system.posix_acl_default"}


@dataclass
class File:
    number: int
    mode: int
    uid: int
    gid: int
    mtime: int
    links: int
    size: int
    sectors: int
    data: bytes
    device: tuple[int, int]
    xattrs: dict[bytes, bytes]


class Reader:
    """One image in memory."""

    def __init__(self, image: bytes) -> None:
        self.image = image
        self.super = image[1024:2048]
        (self.inodes, self.blocks) = struct.unpack_from("<II", self.super, 0)
        (self.per_group,) = struct.unpack_from("<I", self.super, 0x28)
        assert struct.unpack_from("<H", self.super, 0x38) == (0xEF53,)

    def block(self, number: int) -> bytes:
        assert 0 < number < self.blocks
        return self.image[number * BLOCK : (number + 1) * BLOCK]

    def _extents(self, node: bytes) -> list[tuple[int, int, int]]:
        magic, count, most, depth = struct.unpack_from("<HHHH", node)
        assert (magic, count <= most) == (0xF30A, True)
        found = []
        for at in range(12, 12 + 12 * count, 12):
            if depth:
                _, low, high = struct.unpack_from("<IIH", node, at)
                found += self._extents(self.block(high << 32 | low))
            else:
                logical, length, high, low = struct.unpack_from("<IHHI", node, at)
                assert length <= 32768
                found.append((logical, length, high << 32 | low))
        return found

    def _data(self, size: int, node: bytes) -> bytes:
        data = bytearray(-(-size // BLOCK) * BLOCK)
        for logical, length, physical in self._extents(node):
            data[logical * BLOCK : (logical + length) * BLOCK] = self.image[
                physical * BLOCK : (physical + length) * BLOCK
            ]
        return bytes(data[:size])

    def inode(self, number: int) -> File:
        group, index = divmod(number - 1, self.per_group)
        (table,) = struct.unpack_from("<I", self.image, BLOCK + group * 32 + 8)
        raw = self.image[table * BLOCK + index * 256 :][:256]
        mode, uid, size, _, _, mtime, _, gid, links, sectors, flags = struct.unpack_from("<HHIIiiiHHII", raw)
        area = raw[40:100]
        acl, size_high = struct.unpack_from("<II", raw, 0x68)
        uid |= struct.unpack_from("<H", raw, 0x78)[0] << 16
        gid |= struct.unpack_from("<H", raw, 0x7A)[0] << 16
        mtime += (struct.unpack_from("<I", raw, 0x88)[0] & 3) << 32
        size |= size_high << 32
        data = self._data(size, area) if flags & 0x80000 else area[:size]
        old, new = struct.unpack_from("<II", area)
        device = (old >> 8 & 0xFF, old & 0xFF) if old else (new >> 8 & 0xFFF, new & 0xFF | new >> 12 & ~0xFF)
        xattrs = self._xattrs(raw[160:], 4, 4) if raw[160:164] == b"\0\0\2\xea" else {}
        if acl:
            xattrs |= self._xattrs(self.block(acl), 32, 0)
        return File(number, mode, uid, gid, mtime, links, size, sectors, data, device, xattrs)

    def _xattrs(self, area: bytes, at: int, base: int) -> dict[bytes, bytes]:
        found = {}
        while area[at : at + 4] != bytes(4):
            length, index, offset, _, size, _ = struct.unpack_from("<BBHIII", area, at)
            name = area[at + 16 : at + 16 + length]
            full = WHOLE[index] if index in WHOLE else PREFIXES[index] + name
            found[full] = area[base + offset : base + offset + size]
            at += 16 + length + -length % 4
        return found

    def names(self, directory: File) -> dict[bytes, int]:
        found = {}
        for at in range(0, directory.size, BLOCK):
            block, here = directory.data[at : at + BLOCK], 0
            while here < BLOCK:
                number, length, name_length, _ = struct.unpack_from("<IHBB", block, here)
                assert length >= 8
                assert length % 4 == 0
                found[block[here + 8 : here + 8 + name_length]] = number
                here += length
        return found

    def walk(self) -> dict[bytes, File]:
        """Every path with its file."""
        found: dict[bytes, File] = {}
        todo = [(b"", 2, 2)]
        while todo:
            path, number, parent = todo.pop()
            file = found[path] = self.inode(number)
            if file.mode >> 12 == 4:
                names = self.names(file)
                assert (names.pop(b"."), names.pop(b"..")) == (number, parent)
                todo += [(path + b"/" + name, child, number) for name, child in names.items()]
        return found


def read_image(path: Path) -> dict[bytes, File]:
    return Reader(path.read_bytes()).walk()


def facts(files: dict[bytes, File]) -> dict[bytes, Any]:
    """What of files a test compares: all but numbers and places."""
    return {
        path: (file.mode, file.uid, file.gid, file.mtime, file.size, file.device, sorted(file.xattrs.items()))
        for path, file in files.items()
    }
