"""Device-mapper of the fake kernel: what its ioctls answer, and which device lies on which."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from uvmd.linux import devmapper
from uvmd.linux.devmapper import Target

Number = tuple[int, int]


def refuse(code: int, where: str = "") -> OSError:
    """The error that a system call gives."""
    return OSError(code, os.strerror(code), where) if where else OSError(code, os.strerror(code))


@dataclass
class FakeDevice:
    """A device. ``active`` is None until it was resumed with a table."""

    number: Number
    read_only: bool = False
    loaded: list[Target] | None = None
    active: list[Target] | None = None
    doomed: bool = False

    @property
    def below(self) -> Number | None:
        """The device on which it lies."""
        return device_in(self.active[0]) if self.active else None


def device_in(target: Target) -> Number | None:
    """The device that a target names, as the kernel writes it."""
    for word in target.params.split(" "):
        major, colon, minor = word.partition(":")
        if colon and major.isdigit() and minor.isdigit():
            return int(major), int(minor)
    return None


class FakeMapper:
    """See the module.

    Args:
        log: told of each command.
        numbers: block devices by path.
        mounted: the devices that are mounted, and whether they are written to.
    """

    def __init__(
        self,
        log: list[str],
        numbers: dict[str, Number],
        mounted: Callable[[], list[tuple[Number, bool]]],
    ) -> None:
        self.devices: dict[str, FakeDevice] = {}
        self._log = log
        self._numbers = numbers
        self._mounted = mounted

    # What the rest of the kernel asks

    def add(self, name: str, table: list[Target]) -> Number:
        """Make a device that works already, as a tool does."""
        taken = {device.number for device in self.devices.values()}
        number = next((253, minor) for minor in range(256) if (253, minor) not in taken)
        self.devices[name] = FakeDevice(number, active=table or None)
        return number

    def at(self, number: Number) -> FakeDevice | None:
        """The device of this number."""
        return next((device for device in self.devices.values() if device.number == number), None)

    def holders(self, number: Number) -> list[str]:
        """The devices that lie on this one."""
        return [name for name, device in self.devices.items() if device.below == number]

    def open_count(self, number: Number) -> int:
        """How many mounts and devices use this one."""
        return sum(1 for mounted, _ in self._mounted() if mounted == number) + len(self.holders(number))

    def closed(self, number: Number) -> None:
        """Remove a device whose removal was left to its last user."""
        for name, device in list(self.devices.items()):
            if device.doomed and device.number == number and not self.open_count(number):
                del self.devices[name]

    # The control device

    def ioctl(self, fd: int, request: int, buffer: bytearray) -> None:
        """Stand for ``syscalls.ioctl``."""
        assert request >> 8 & 0xFF == 0xFD, "an ioctl of something else"
        header = devmapper._HEADER.unpack_from(buffer)
        name, command = header[11].rstrip(b"\0").decode(), request & 0xFF
        if command == devmapper._VERSION:
            return
        if command == devmapper._LIST:
            buffer[312:] = self._names()
            return
        if command == devmapper._CREATE:
            if name in self.devices:
                raise refuse(errno.EBUSY)
            self.add(name, [])
        device = self.devices.get(name)
        if device is None:
            raise refuse(errno.ENXIO)
        self._log.append(f"dm {command} {name}")
        if command == devmapper._REMOVE:
            self._remove(name, device, header[7])
        elif command == devmapper._LOAD:
            self._load(device, header, buffer)
        elif command == devmapper._SUSPEND:
            device.active, device.loaded = device.loaded or device.active, None
        else:
            self._answer(device, header, buffer, command == devmapper._TABLE)

    def _remove(self, name: str, device: FakeDevice, flags: int) -> None:
        if not self.open_count(device.number):
            del self.devices[name]
        elif flags & devmapper._DEFERRED_REMOVE:
            device.doomed = True
        else:
            raise refuse(errno.EBUSY)

    def _load(self, device: FakeDevice, header: tuple[Any, ...], buffer: bytearray) -> None:
        targets, at = [], header[4]
        for _ in range(header[5]):
            start, length, _status, size, kind = devmapper._TARGET.unpack_from(buffer, at)
            type_ = kind.rstrip(b"\0").decode()
            params = bytes(buffer[at + 40 : at + size]).partition(b"\0")[0].decode()
            words = params.split(" ")
            if type_ == "verity" and (len(words) != 10 or "" in words):
                raise refuse(errno.EINVAL)
            for path in (word for word in words if word.startswith("/")):
                if path not in self._numbers:
                    raise refuse(errno.ENODEV)
                if (self._numbers[path], True) in self._mounted():
                    raise refuse(errno.EBUSY)
            targets.append(devmapper.resolved(Target(start, length, type_, params)))
            at += size
        device.loaded, device.read_only = targets, bool(header[7] & 1)

    def _answer(
        self, device: FakeDevice, header: tuple[Any, ...], buffer: bytearray, with_table: bool
    ) -> None:
        major, minor = device.number
        number = (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)
        flags = header[7] | (32 if device.active else 0) | (1 if device.read_only else 0)
        targets = device.active or () if with_table else ()
        data = b""
        for target in targets:
            record = bytearray(devmapper.pack_target(target))
            # Counted from the first record here, where a request counts from its own.
            record[20:24] = (len(data) + len(record)).to_bytes(4, "little")
            data += record
        buffer[312 : 312 + len(data)] = data
        start = 312 if with_table else header[4]
        answer = (*header[:4], start, len(targets), self.open_count(device.number), flags, 0, 0, number)
        devmapper._HEADER.pack_into(buffer, 0, *answer, header[11], b"")

    def _names(self) -> bytes:
        entries = []
        for name, device in self.devices.items():
            text = name.encode() + b"\0"
            size = -(-(12 + len(text)) // 8) * 8
            packed = devmapper._NAME.pack(device.number[0] << 8 | 1, size)
            entries.append((packed + text).ljust(size, b"\0"))
        if not entries:
            return bytes(16)
        last = entries[-1]
        return b"".join([*entries[:-1], last[:8] + bytes(4) + last[12:]])
