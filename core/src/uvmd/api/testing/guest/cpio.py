"""The archive format of an initramfs: cpio "newc", uncompressed, byte for byte repeatable.

Kernel documentation: driver-api/early-userspace/buffer-format.rst. Several archives may
follow each other in one file; the kernel unpacks them all.
"""

from __future__ import annotations

import stat

_ALIGN = 4


class Archive:
    """Collects entries; parents of a name are made with mode 0755 when they are missing."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._names: set[str] = set()

    def folder(self, name: str, mode: int = 0o755) -> None:
        """Add a folder, unless it is there."""
        if name not in self._names:
            self._add(name, stat.S_IFDIR | mode, b"")

    def file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        """Add a file."""
        self._add(name, stat.S_IFREG | mode, content)

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def device(self, name: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Add a character device; no root is needed, it is only a record."""
        self._add(name, stat.S_IFCHR | mode, b"", (major, minor))

    def to_bytes(self) -> bytes:
        """Return the finished archive."""
        return b"".join(self._parts) + _record(0, "TRAILER!!!", 0, b"", (0, 0))

    def _add(self, name: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)) -> None:
        parent = name.rpartition("/")[0]
        if parent:
            self.folder(parent)
        self._names.add(name)
        self._parts.append(_record(len(self._names), name, mode, content, device))


def _record(inode: int, name: str, mode: int, content: bytes, device: tuple[int, int]) -> bytes:
    links = 2 if stat.S_ISDIR(mode) else 1
    size_of_name = len(name.encode()) + 1
    fields = (inode, mode, 0, 0, links, 0, len(content), 0, 0, *device, size_of_name, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGN)
