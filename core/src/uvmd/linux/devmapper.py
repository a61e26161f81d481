"""Device-mapper by ioctl: devices with a table of targets, and their nodes.

No udev is needed and none is waited for: the node in ``/dev/mapper`` is made here, a real
node, because whoever takes a path for a device looks at the node and not through a link.
Where udev runs it is told to leave our devices alone: it would put a link there, and
remove what is there when it gets to the end of an earlier device of the same name.

Layout and numbers are those of linux/dm-ioctl.h. Everything raises OSError whose text
names the operation: ``device-mapper table load: no such device``.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from uvmd.linux import block

DIRECTORY = "/dev/mapper"

_HEADER: Final = struct.Struct("=3IIIIiIIIQ128s129s7x")
_TARGET: Final = struct.Struct("=QQiI16s")
_NAME: Final = struct.Struct("=QI")
_TYPE: Final = struct.Struct("=I3I")
#: For the larger buffer of a table the size in the ioctl's number stays that of the header.
_IOCTL: Final = 3 << 30 | _HEADER.size << 16 | 0xFD << 8

_VERSION, _LIST, _CREATE, _REMOVE, _SUSPEND, _STATUS, _LOAD, _TABLE, _TYPES = 0, 2, 3, 4, 6, 7, 9, 12, 13
_OPERATIONS: Final = {
    _VERSION: "version",
    _LIST: "list devices",
    _CREATE: "device create",
    _REMOVE: "device remove",
    _SUSPEND: "device suspend",
    _STATUS: "device status",
    _LOAD: "table load",
    _TABLE: "table status",
    _TYPES: "list target types",
}

_READ_ONLY: Final = 1 << 0
_SUSPENDED: Final = 1 << 1
_SHOW_TABLE: Final = 1 << 4
_HAS_TABLE: Final = 1 << 5
_BUFFER_FULL: Final = 1 << 8
_DEFERRED_REMOVE: Final = 1 << 17
#: For udev's rules, in the upper half of the event number (DM_UDEV_* of libdevmapper): no links,
#: nothing of subsystems, disks or others, and that these flags are the device's own.
_HANDS_OFF: Final = (0x01 | 0x02 | 0x04 | 0x08 | 0x20 | 0x40) << 16

#: The kernel's control device, for machines whose /dev was made before its module was loaded.
_CONTROL_NUMBER: Final = (10, 236)
#: What may pass: a device that is only just arriving, or somebody who is just looking at it.
_TRANSIENT: Final = (errno.EBUSY, errno.ENOENT, errno.ENXIO, errno.ENODEV)
_CREATE_PAUSE_S: Final = 0.1
_REMOVE_PAUSE_S: Final = 0.01
_PATIENCE_S: Final = 1.0
MAX_NAME: Final = 127


class Target(NamedTuple):
    """One line of a table; ``start`` and ``length`` in sectors of 512 bytes."""

    start: int
    length: int
    type: str
    params: str


class Status(NamedTuple):
    """What the kernel says of a device. Without a table it is only a name."""

    device: tuple[int, int]
    open_count: int
    read_only: bool
    suspended: bool
    has_table: bool


class _Reply(NamedTuple):
    flags: int
    open_count: int
    target_count: int
    device: int
    data: bytes


# Bytes


def pack_header(size: int, name: str = "", flags: int = 0, targets: int = 0, event: int = 0) -> bytes:
    """Return the header of a request of ``size`` bytes in all."""
    start = _HEADER.size if targets or size > _HEADER.size else 0
    return _HEADER.pack(4, 0, 0, size, start, targets, 0, flags, event, 0, 0, os.fsencode(name), b"")


def pack_target(target: Target) -> bytes:
    """Return the record of one target, padded to a multiple of eight bytes."""
    params = os.fsencode(target.params) + b"\0"
    size = -(-(_TARGET.size + len(params)) // 8) * 8
    record = _TARGET.pack(target.start, target.length, 0, size, target.type.encode())
    return (record + params).ljust(size, b"\0")


def parse_targets(data: bytes, count: int) -> Iterator[Target]:
    """Yield the targets of an answer to a table status. Raises ValueError if it is none."""
    at = 0
    for _ in range(count):
        if not 0 <= at <= len(data) - _TARGET.size:
            raise ValueError("a target lies outside of the answer")
        start, length, _status, following, kind = _TARGET.unpack_from(data, at)
        params = data[at + _TARGET.size :].partition(b"\0")[0]
        yield Target(start, length, kind.rstrip(b"\0").decode("ascii", "replace"), os.fsdecode(params))
        at = following  # counted from the first target


def parse_names(data: bytes) -> Iterator[str]:
    """Yield the names of an answer to list devices. Raises ValueError if it is none."""
    at = 0
    while True:
        if not 0 <= at <= len(data) - _NAME.size:
            raise ValueError("a name lies outside of the answer")
        device, following = _NAME.unpack_from(data, at)
        name = data[at + _NAME.size :].partition(b"\0")[0]
        if device:  # the only entry of an empty list has none
            yield os.fsdecode(name)
        if not following:
            return
        at += following


def parse_types(data: bytes) -> Iterator[str]:
    """Yield the types of an answer to list target types. Raises ValueError if it is none."""
    at = 0
    while True:
        if not 0 <= at <= len(data) - _TYPE.size:
            raise ValueError("a type lies outside of the answer")
        following = _TYPE.unpack_from(data, at)[0]
        yield os.fsdecode(data[at + _TYPE.size :].partition(b"\0")[0])
        if not following:
            return
        at += following


def parse_device(number: int) -> tuple[int, int]:
    """Split the kernel's encoding of a device number into major and minor."""
    return (number >> 8) & 0xFFF, (number & 0xFF) | ((number >> 12) & 0xFFF00)


# Talking to the kernel


def _open_control() -> int:
    path = f"{DIRECTORY}/control"
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        pass
    # Opening the node is what makes the kernel load its module.
    try:
        os.makedirs(DIRECTORY, mode=0o755, exist_ok=True)
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(*_CONTROL_NUMBER))
    except FileExistsError:
        pass
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        _unlink(path)
        raise OSError(error.errno, f"device-mapper: {os.strerror(error.errno or 0).lower()}", path) from None


class _Control:
    """The control device while a piece of work lasts."""

    #: Whether the kernel speaks our version; it does not change while we run.
    checked = False

    def __enter__(self) -> _Control:
        self._fd = _open_control()
        if not _Control.checked:
            try:
                self(_VERSION)
            except BaseException:
                os.close(self._fd)
                raise
            _Control.checked = True
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def __call__(
        self, command: int, name: str = "", flags: int = 0, targets: Sequence[Target] = (), room: int = 0
    ) -> _Reply:
        from uvmd.linux import syscalls

        records = b"".join(map(pack_target, targets))
        size = _HEADER.size + max(len(records), room)
        event = _HANDS_OFF if command in (_SUSPEND, _REMOVE) else 0
        buffer = bytearray(pack_header(size, name, flags, len(targets), event) + records)
        buffer += bytes(size - len(buffer))
        try:
            syscalls.ioctl(self._fd, _IOCTL | command, buffer)
        except OSError as error:
            code = error.errno or errno.EIO
            text = f"device-mapper {_OPERATIONS[command]}: {os.strerror(code).lower()}"
            raise OSError(code, text) from None
        *_, start, count, opened, flags, _event, _padding, device, _name, _uuid = _HEADER.unpack_from(buffer)
        return _Reply(flags, opened, count, device, bytes(buffer[start or _HEADER.size :]))

    def read(self, command: int, name: str = "", flags: int = 0) -> _Reply:
        """Ask for something of unknown length."""
        room = 16384
        while True:
            reply = self(command, name, flags, room=room)
            if not reply.flags & _BUFFER_FULL:
                return reply
            room *= 2


# What others call


def status(name: str) -> Status | None:
    """Return what is known of a device, None if there is none of this name."""
    with _Control() as control:
        return _status(control, name)


def _status(control: _Control, name: str) -> Status | None:
    try:
        reply = control(_STATUS, name)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
    return Status(
        parse_device(reply.device),
        reply.open_count,
        bool(reply.flags & _READ_ONLY),
        bool(reply.flags & _SUSPENDED),
        bool(reply.flags & _HAS_TABLE),
    )


def exists(name: str) -> bool:
    """Tell whether there is a device of this name."""
    return status(name) is not None


def table(name: str) -> list[Target]:
    """Return the active table of a device; the kernel writes devices as ``major:minor``."""
    with _Control() as control:
        reply = control.read(_TABLE, name, _SHOW_TABLE)
    return list(parse_targets(reply.data, reply.target_count))


def names() -> list[str]:
    """Return the names of all devices."""
    with _Control() as control:
        return sorted(parse_names(control.read(_LIST).data))


def target_types() -> frozenset[str]:
    """Return the types of targets that are built into the kernel, or loaded."""
    with _Control() as control:
        return frozenset(parse_types(control.read(_TYPES).data))


def create(
    name: str,
    targets: Sequence[Target],
    read_only: bool = True,
    deadline: float | None = None,
    *,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> str:
    """Make a device and its node, whole or not at all; return the node's path.

    Until ``deadline`` (monotonic clock) it is tried again when what it rests on is not
    there yet, or is being looked at.

    Raises:
        OSError: EEXIST if the name is taken, else the last try's.
    """
    require_name(name)
    deadline = clock() + _PATIENCE_S if deadline is None else deadline
    while True:
        try:
            return _create(name, targets, read_only)
        except OSError as error:
            if error.errno not in _TRANSIENT or clock() + _CREATE_PAUSE_S > deadline:
                raise
        pause(_CREATE_PAUSE_S)


def _create(name: str, targets: Sequence[Target], read_only: bool) -> str:
    with _Control() as control:
        try:
            device = control(_CREATE, name).device
        except OSError as error:
            # EBUSY here is no wait: the name is taken, and stays so.
            if error.errno == errno.EBUSY and _status(control, name) is not None:
                raise OSError(errno.EEXIST, f"device-mapper device create: {name} exists") from None
            raise
        try:
            control(_LOAD, name, _READ_ONLY if read_only else 0, targets)
            control(_SUSPEND, name)  # without the flag for suspending it resumes
            return make_node(name, parse_device(device))
        except BaseException:
            control(_REMOVE, name)
            raise


def make_node(name: str, device: tuple[int, int]) -> str:
    """Put a real node in the place of whatever is at the device's path."""
    path = f"{DIRECTORY}/{name}"
    mode, number = 0o600 | stat.S_IFBLK, os.makedev(*device)
    try:
        os.mknod(path, mode, number)
    except FileExistsError:
        _unlink(path)
        os.mknod(path, mode, number)
    return path


def ensure(
    name: str, targets: Sequence[Target], read_only: bool = True, deadline: float | None = None
) -> tuple[str, bool]:
    """As :func:`create`, but a device of this name and table will do; tell whether it was made.

    One that somebody left without a table, or with another one and unused, is replaced.

    Raises:
        OSError: EBUSY if another table is in use under this name.
    """
    try:
        return create(name, targets, read_only, deadline), True
    except FileExistsError:
        pass
    there = status(name)
    if there is not None and there.has_table and not there.suspended:
        if [*map(resolved, table(name))] == [*map(resolved, targets)]:
            return make_node(name, there.device), False
    if there is not None and there.open_count:
        raise OSError(errno.EBUSY, f"device-mapper device create: {name} is in use with another table")
    remove(name)
    return create(name, targets, read_only, deadline), True


def remove(
    name: str,
    deadline: float | None = None,
    *,
    later: bool = False,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Remove a device and its node; one that is not there is fine. Tell whether it is gone.

    A device that is still in use at ``deadline`` (monotonic clock; a second by default) is,
    with ``later``, left to the kernel, which removes it when the last user closes it.

    Raises:
        OSError: EBUSY if it is in use, without ``later``.
    """
    require_name(name)
    deadline = clock() + _PATIENCE_S if deadline is None else deadline
    while True:
        try:
            _remove(name, 0)
            return True
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            if clock() + _REMOVE_PAUSE_S > deadline:
                if not later:
                    raise
                break
        pause(_REMOVE_PAUSE_S)
    _remove(name, _DEFERRED_REMOVE)
    return False


def _remove(name: str, flags: int) -> None:
    with _Control() as control:
        try:
            control(_REMOVE, name, flags)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
    _unlink(f"{DIRECTORY}/{name}")


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def require_name(name: str) -> None:
    """Refuse what is no name of a device. Raises ValueError."""
    if not name or "/" in name or "\0" in name or name in (".", "..", "control") or len(name) > MAX_NAME:
        raise ValueError("a device-mapper name has 1 to 127 characters and no slash")


def resolved(target: Target) -> Target:
    """Return a target as the kernel writes it: paths of devices as ``major:minor``."""
    return target._replace(params=" ".join(_number_of(word) for word in target.params.split(" ")))


def _number_of(word: str) -> str:
    if not word.startswith("/"):
        return word
    try:
        major, minor = block.device_number(word)
    except OSError:
        return word
    return f"{major}:{minor}"


def linear(device: str, offset_bytes: int, size_bytes: int) -> Target:
    """Return the target of a part of a device."""
    return Target(0, size_bytes // 512, "linear", f"{device} {offset_bytes // 512}")
