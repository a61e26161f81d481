"""The kernel's drivers as a program sees them: ioctls of three devices, and configfs-tsm.

What a driver is given is the number and the argument's bytes, and the memory of the
process that asks; offsets are those of linux/sev-guest.h, linux/tdx-guest.h and, for the
5.x driver, of the specification.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field

from emulated_fs import File, Folder, Node
from emulated_processors import Amd, Intel, number, put

SUCCESS = (0, b"")


class Memory:
    """A process's memory, by its pid."""

    def __init__(self, pid: int | str) -> None:
        self._path = f"/proc/{pid}/mem"

    def read(self, address: int, size: int) -> bytes:
        with open(self._path, "rb", buffering=0) as memory:
            memory.seek(address)
            return memory.read(size)

    def write(self, address: int, content: bytes) -> None:
        with open(self._path, "wb", buffering=0) as memory:
            memory.seek(address)
            memory.write(content)


def little(content: bytes) -> int:
    return int.from_bytes(content, "little")


@dataclass
class SnpDevice:
    """Both generations of the SEV driver. ``status`` is the firmware's, ``refuse`` an errno."""

    processor: Amd
    old: bool = False
    status: int = 0
    size: int = 0x4A0
    refuse: int = 0
    firmware_error: int = 0
    asked: list[bytes] = field(default_factory=list)

    def ioctl(self, request: int, argument: bytes, memory: Memory) -> tuple[int, bytes]:
        """Return errno and the argument as it is afterwards."""
        known = 0xC0285301 if self.old else 0xC0205300
        if request != known:
            return errno.ENOTTY, argument
        page = bytearray(argument)
        if self.old:
            assert (page[0], page[1], page[2], little(page[4:6]), little(page[16:18])) == (5, 6, 1, 96, 1280)
            question, answer, room, error_at, error_size = (
                little(page[8:16]),
                little(page[24:32]),
                1280,
                32,
                4,
            )
        else:
            assert page[0] == 1
            question, answer, room, error_at, error_size = (
                little(page[8:16]),
                little(page[16:24]),
                4000,
                24,
                8,
            )
        if self.refuse:
            put(page, error_at, number(self.firmware_error, error_size))
            return self.refuse, bytes(page)
        asked = memory.read(question, 96)
        self.asked.append(asked)
        assert asked[68:] == bytes(28)
        message = number(self.status, 4) + number(self.size, 4) + bytes(24)
        message += b"" if self.status else self.processor.report(asked[:64], little(asked[64:68]))
        memory.write(answer, message.ljust(room, b"\0"))
        return 0, bytes(page)


@dataclass
class TdxDevice:
    """The driver of a trust domain."""

    processor: Intel
    refuse: int = 0

    def ioctl(self, request: int, argument: bytes, memory: Memory) -> tuple[int, bytes]:
        if request != 0xC4405401:
            return errno.ENOTTY, argument
        if self.refuse:
            return self.refuse, argument
        return 0, argument[:64] + self.processor.report(argument[:64])


@dataclass
class Module:
    """A security module behind configfs-tsm: its provider's name and what it makes of a request."""

    provider: str
    report: Callable[[bytes, int], bytes]
    certificates: bytes | None = None
    manifest: bytes | None = None
    floor: int | None = None
    #: What another program, or a kernel that lost a write, does to the generation.
    disturbed_by: int = 0
    refuse: int = 0


class Reports(Folder):
    """``/sys/kernel/config/tsm/report``. Without a module nothing can be made in it (ENXIO)."""

    def __init__(self, module: Module | None) -> None:
        super().__init__()
        self.module = module
        self.made: list[str] = []

    def mkdir(self, name: str) -> Node:
        if self.module is None:
            raise OSError(errno.ENXIO, "no module")
        self.made.append(name)
        self.entries[name] = Request(self.module)
        return self.entries[name]

    def rmdir(self, name: str) -> None:
        del self.entries[name]


class Request(Folder):
    """One folder made there: its attributes hang together by the generation."""

    def __init__(self, module: Module) -> None:
        super().__init__()
        self.module = module
        self.data: bytes | None = None
        self.level = 0
        self.written = 0
        self.entries = {
            "generation": File(read=lambda: f"{self.written}\n".encode()),
            "provider": File(read=lambda: f"{module.provider}\n".encode()),
            "inblob": File(write=self._data, at_close=True),
            "outblob": File(read=self._report),
        }
        if module.certificates is not None:
            self.entries["auxblob"] = File(read=lambda: self._ready(module.certificates or b""))
        if module.manifest is not None:
            self.entries["manifestblob"] = File(read=lambda: self._ready(module.manifest or b""))
        if module.floor is not None:
            self.entries["privlevel_floor"] = File(read=lambda: f"{module.floor}\n".encode())
            self.entries["privlevel"] = File(write=self._level)

    def _data(self, content: bytes) -> None:
        if len(content) > 64:
            raise OSError(errno.EINVAL, "too long")
        self.data = content
        self.written += 1 + self.module.disturbed_by

    def _level(self, content: bytes) -> None:
        level = int(content)
        if not (self.module.floor or 0) <= level <= 3:
            raise OSError(errno.EINVAL, "not a level of this guest")
        self.level = level
        self.written += 1

    def _ready(self, content: bytes) -> bytes:
        if not self.data:
            raise OSError(errno.EINVAL, "nothing was asked")
        if self.level < (self.module.floor or 0):
            raise OSError(errno.EIO, "a report for a level above one's own")
        if self.module.refuse:
            raise OSError(self.module.refuse, "refused")
        return content

    def _report(self) -> bytes:
        self._ready(b"")
        assert self.data is not None
        return self.module.report(self.data, self.level)


def config_tree(module: Module | None) -> tuple[Folder, Reports]:
    """What is mounted at ``/sys/kernel/config``, and the folder of the requests in it."""
    reports = Reports(module)
    return Folder({"tsm": Folder({"report": reports})}), reports
