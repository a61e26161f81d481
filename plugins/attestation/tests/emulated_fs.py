"""A file system whose files are functions: what the tests mount in the kernel's place.

The real kernel forwards every system call on it (FUSE, protocol 7.31: linux/fuse.h), so the
implementation under test opens, makes folders, reads, writes and asks by ioctl as it would
in a confidential VM.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

Ioctl = Callable[[int, bytes, int], tuple[int, bytes]]


class Node:
    """Anything that has a mode."""

    mode = 0


class File(Node):
    """An attribute or a device. ``at_close``: what was written counts when the file is closed.

    ``ioctl`` gets the number, the argument and the caller's pid; returns errno and the argument.
    """

    mode = stat.S_IFREG | 0o600

    def __init__(
        self,
        read: Callable[[], bytes] | None = None,
        write: Callable[[bytes], None] | None = None,
        ioctl: Ioctl | None = None,
        *,
        at_close: bool = False,
    ) -> None:
        self.read, self.write, self.ioctl, self.at_close = read, write, ioctl, at_close


class Folder(Node):
    """Holds nodes by name."""

    mode = stat.S_IFDIR | 0o700

    def __init__(self, entries: dict[str, Node] | None = None) -> None:
        self.entries: dict[str, Node] = dict(entries or {})

    def mkdir(self, name: str) -> Node:
        raise OSError(errno.EPERM, "fixed")

    def rmdir(self, name: str) -> None:
        raise OSError(errno.EPERM, "fixed")


class Handle:
    """One open file: what it shows stays as it was at the first read."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.content: bytes | None = None
        self.written = bytearray()

    def read(self, offset: int, size: int) -> bytes:
        if self.content is None:
            if self.file.read is None:
                raise OSError(errno.EPERM, "write only")
            self.content = self.file.read()
        return self.content[offset : offset + size]

    def write(self, content: bytes) -> None:
        if self.file.write is None:
            raise OSError(errno.EPERM, "read only")
        if self.file.at_close:
            self.written += content
        else:
            self.file.write(content)

    def flush(self) -> None:
        if self.written and self.file.write is not None:
            content, self.written = bytes(self.written), bytearray()
            try:
                self.file.write(content)
            except OSError:
                pass  # as configfs does: nobody is told


class Mounted:
    """The tree, mounted; served on a thread until it is unmounted."""

    def __init__(self, where: Path, root: Folder) -> None:
        self.where = where
        self._nodes: dict[int, Node] = {1: root}
        self._numbers: dict[int, int] = {id(root): 1}
        self._handles: dict[int, Handle] = {}
        self._next = 1
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._serve, name="emulated-fs", daemon=True)
        options = f"fd={self._fd},rootmode=40000,user_id=0,group_id=0"
        mount = ["mount", "-i", "-n", "-t", "fuse", "-o", options, "emulated", str(where)]
        subprocess.run(mount, check=True, pass_fds=[self._fd])
        self._thread.start()

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.where)], check=True)
        self._thread.join(10)
        assert not self._thread.is_alive()
        os.close(self._fd)

    def _serve(self) -> None:
        while True:
            try:
                message = os.read(self._fd, 1 << 20)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                continue
            _, opcode, unique, node, _, _, pid = struct.unpack_from("<IIQQIII", message)
            name = _NAMES.get(opcode)
            if name in ("forget", "interrupt"):
                continue
            failed, answer = 0, b""
            try:
                if name is None:
                    raise OSError(errno.ENOSYS, "not needed")
                answer = getattr(self, f"_{name}")(node, message[40:], pid)
            except OSError as error:
                failed = error.errno or errno.EIO
            except Exception:
                # A driver that was asked wrongly: the caller sees a failure, the test its text.
                failed = errno.EPROTO
            try:
                os.write(self._fd, struct.pack("<IiQ", 16 + len(answer), -failed, unique) + answer)
            except OSError:
                continue  # the caller was interrupted

    # What the kernel asks for, by linux/fuse.h

    def _init(self, node: int, body: bytes, pid: int) -> bytes:
        _, minor = struct.unpack_from("<II", body)
        return struct.pack("<IIII HHI I HH", 7, min(minor, 31), 65536, 0, 8, 6, 65536, 1, 0, 0).ljust(
            64, b"\0"
        )

    def _number(self, node: Node) -> int:
        if id(node) not in self._numbers:
            self._numbers[id(node)] = len(self._nodes) + 1
            self._nodes[len(self._nodes) + 1] = node
        return self._numbers[id(node)]

    def _attributes(self, node: Node) -> bytes:
        return struct.pack(
            "<6Q10I", self._number(node), 0, 0, 0, 0, 0, 0, 0, 0, node.mode, 1, 0, 0, 0, 4096, 0
        )

    def _entry(self, node: Node) -> bytes:
        return struct.pack("<QQQQII", self._number(node), 0, 0, 0, 0, 0) + self._attributes(node)

    def _folder(self, node: int) -> Folder:
        found = self._nodes[node]
        assert isinstance(found, Folder)
        return found

    def _lookup(self, node: int, body: bytes, pid: int) -> bytes:
        found = self._folder(node).entries.get(body.rstrip(b"\0").decode())
        if found is None:
            raise OSError(errno.ENOENT, "no such entry")
        return self._entry(found)

    def _getattr(self, node: int, body: bytes, pid: int) -> bytes:
        return struct.pack("<QII", 0, 0, 0) + self._attributes(self._nodes[node])

    _setattr = _getattr

    def _mkdir(self, node: int, body: bytes, pid: int) -> bytes:
        return self._entry(self._folder(node).mkdir(body[8:].rstrip(b"\0").decode()))

    def _rmdir(self, node: int, body: bytes, pid: int) -> bytes:
        self._folder(node).rmdir(body.rstrip(b"\0").decode())
        return b""

    def _open(self, node: int, body: bytes, pid: int) -> bytes:
        file: Any = self._nodes[node]
        self._next += 1
        self._handles[self._next] = Handle(file)
        return struct.pack("<QIi", self._next, 1, 0)  # direct I/O: sizes are not known before

    def _handle(self, body: bytes) -> Handle:
        return self._handles[struct.unpack_from("<Q", body)[0]]

    def _read(self, node: int, body: bytes, pid: int) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        return self._handle(body).read(offset, size)

    def _write(self, node: int, body: bytes, pid: int) -> bytes:
        (size,) = struct.unpack_from("<I", body, 16)
        self._handle(body).write(body[40 : 40 + size])
        return struct.pack("<II", size, 0)

    def _flush(self, node: int, body: bytes, pid: int) -> bytes:
        self._handle(body).flush()
        return b""

    def _release(self, node: int, body: bytes, pid: int) -> bytes:
        self._handles.pop(struct.unpack_from("<Q", body)[0], None)
        return b""

    def _ioctl(self, node: int, body: bytes, pid: int) -> bytes:
        ask = self._handle(body).file.ioctl
        if ask is None:
            raise OSError(errno.ENOTTY, "no device")
        _, _, request, _, in_size, out_size = struct.unpack_from("<QIIQII", body)
        failed, argument = ask(request, body[32 : 32 + in_size], pid)
        return struct.pack("<iIII", -failed, 0, 0, 0) + argument[:out_size]


_NAMES = {
    1: "lookup", 2: "forget", 3: "getattr", 4: "setattr", 9: "mkdir", 11: "rmdir", 14: "open", 15: "read",
    16: "write", 18: "release", 25: "flush", 26: "init", 36: "interrupt", 39: "ioctl", 42: "forget",
}  # fmt: skip
