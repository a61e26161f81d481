"""The packets between monitor and daemon: bytes in, values out; no sockets here.

A packet is ``<HHI`` (operation, number of fields, tag) and typed fields: ``i`` and a
signed 64-bit number, ``b`` and length-prefixed bytes, ``l`` and a counted list of
length-prefixed bytes; all little endian. ``SHAPES`` says which fields an operation has,
so whoever takes a decoded packet need not look at types again. The whole language is
described in docs/monitor-protocol.md.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False  # not from typing: that import alone costs the monitor half a MiB
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

VERSION = 2

MAX_INLINE_BYTES = 60 * 1024
"""Above this a packet travels in a sealed memfd; a socket's default buffer holds three."""

ROOM_BYTES = 64 * 1024
"""What a packet is received into; one that fills it is none."""

MAX_PACKET_BYTES = 80 * 1024 * 1024
MAX_FIELDS = 16
MAX_ITEMS = 65_536
MAX_DESCRIPTORS = 32

HELLO = 1
OPEN_BRIDGE = 2
STREAM_BASE = 3
SEND_FRAME = 4
CLOSE_BRIDGE = 5
RUN = 6
OPEN_SLOT = 7
CONNECT = 8
SPAWN = 9
KILL = 10
RESIZE = 11
STOP_REDIAL = 12
RELEASE = 13
DIAL = 14
FINISH = 15
CONFIGURE = 16
TAKEN = 17
SERVICE = 18
FORGET = 20
AWAIT = 21
NOTE = 22
STARTED_AS = 23

REPLY = 64
ERROR = 65
BRIDGE_UP = 66
BRIDGE_FRAME = 67
BRIDGE_UNSENT = 68
BRIDGE_DOWN = 69
EXITED = 70
DRAINED = 71
STOP = 72
BRIDGE_AGAIN = 73

LARGE = 127

SHAPES: dict[int, str | None] = {
    HELLO: "i",  # version
    OPEN_BRIDGE: "b",  # target
    STREAM_BASE: "b",  # target
    SEND_FRAME: "iiiib",  # generation, request, slot, state, frame
    CLOSE_BRIDGE: "i",  # generation
    # The last two of the next five: the request of the host for which it is done, and the name
    # under which it is done once, whoever asks ("": each time).
    RUN: "llbbiiibib",  # argv, env, cwd, stdin, deadline_ns, limit_bytes, slot, pid_file
    OPEN_SLOT: "iibbib",  # slot, terminal, console_socket, label
    CONNECT: "iiiiiiiiib",  # slot, stdin, stdout, stderr, redial, has_tee, discard, deadline_ns
    SPAWN: "illbiiiiilibib",  # slot, argv, env, cwd, terminal, 3 ports, discard, cgroups, deadline_ns, label
    KILL: "iiib",  # slot, signal
    RESIZE: "iii",  # slot, rows, columns
    STOP_REDIAL: "i",  # slot
    RELEASE: "i",  # slot
    DIAL: "ii",  # port, deadline_ns
    FINISH: "i",  # status
    CONFIGURE: "bbii",  # log format, log level, max_inbound_bytes, drain_grace_ns; "" and -1: as it is
    TAKEN: "i",  # bytes of a large packet that its receiver has read
    SERVICE: "illlb",  # slot, argv, env, limits, label
    FORGET: "i",  # request
    AWAIT: "i",  # request
    NOTE: "ibb",  # request, name, value
    STARTED_AS: "ll",  # argv, env
    REPLY: None,  # whatever the request's answer holds
    ERROR: "ib",  # errno, text
    BRIDGE_UP: "ii",  # generation, state
    BRIDGE_FRAME: "iib",  # generation, request, frame
    BRIDGE_UNSENT: "iib",  # request, slot, frame
    BRIDGE_DOWN: "ib",  # generation, reason
    EXITED: "iii",  # slot, pid, status
    DRAINED: "i",  # slot
    STOP: "b",  # reason
    BRIDGE_AGAIN: "iiiib",  # generation, request, attempt, state, frame
    LARGE: "i",  # size of the packet in the first descriptor
}

#: Questions that requests of the host lead to, in words.
WORDS: dict[int, str] = {
    RUN: "run",
    OPEN_SLOT: "open slot",
    CONNECT: "connect",
    SPAWN: "spawn",
    KILL: "kill",
    RESIZE: "resize",
    DIAL: "dial",
    SERVICE: "service",
    AWAIT: "await",
}

HEADER = struct.Struct("<HHI")
_INT = struct.Struct("<cq")
_LENGTH = struct.Struct("<cI")
_ITEM = struct.Struct("<I")


class WireError(Exception):
    """The peer's bytes are no packet. The connection cannot go on."""


def encode(op: int, tag: int, *fields: int | bytes | Sequence[bytes]) -> bytes:
    """Return the packet as one piece of bytes; what this returns, every peer takes.

    Raises:
        WireError: a number leaves 64 bits, or a list or the packet is too large.
    """
    parts = [HEADER.pack(op, len(fields), tag)]
    for field in fields:
        if isinstance(field, int):
            try:
                parts.append(_INT.pack(b"i", field))
            except struct.error as error:
                raise WireError(f"operation {op}: {error}") from error
        elif isinstance(field, bytes):
            parts.append(_LENGTH.pack(b"b", len(field)))
            parts.append(field)
        else:
            if len(field) > MAX_ITEMS:
                raise WireError(f"operation {op}: a list of {len(field)} items, allowed {MAX_ITEMS}")
            parts.append(_LENGTH.pack(b"l", len(field)))
            for item in field:
                parts.append(_ITEM.pack(len(item)))
                parts.append(item)
    packet = b"".join(parts)
    if len(packet) > MAX_PACKET_BYTES:
        raise WireError(f"operation {op}: a packet of {len(packet)} bytes, allowed {MAX_PACKET_BYTES}")
    return packet


def decode(packet: bytes) -> tuple[int, int, list[Any]]:
    """Return (operation, tag, fields) of one whole packet.

    Raises:
        WireError: cut short, trailing bytes, unknown operation or the wrong fields for it.
    """
    size = len(packet)
    if size < HEADER.size:
        raise WireError(f"a packet of {size} bytes")
    op, count, tag = HEADER.unpack_from(packet)
    if op not in SHAPES:
        raise WireError(f"unknown operation {op}")
    if count > MAX_FIELDS:
        raise WireError(f"operation {op}: {count} fields")
    fields: list[Any] = []
    shape = ""
    at = HEADER.size
    try:
        for _ in range(count):
            kind = packet[at : at + 1]
            if kind == b"i":
                fields.append(_INT.unpack_from(packet, at)[1])
                at += _INT.size
                shape += "i"
            elif kind == b"b":
                length = _LENGTH.unpack_from(packet, at)[1]
                at += _LENGTH.size + length
                # A slice would silently come out short.
                if at > size:
                    raise WireError(f"operation {op}: bytes cut short")
                fields.append(packet[at - length : at])
                shape += "b"
            elif kind == b"l":
                items, at = _decode_list(packet, at)
                fields.append(items)
                shape += "l"
            else:
                raise WireError(f"operation {op}: field of kind {kind!r}")
    except struct.error as error:
        raise WireError(f"operation {op}: cut short") from error
    if at != size:
        raise WireError(f"operation {op}: {size - at} trailing bytes")
    wanted = SHAPES[op]
    if wanted is not None and shape != wanted:
        raise WireError(f"operation {op}: fields {shape!r}, wanted {wanted!r}")
    return op, tag, fields


def _decode_list(packet: bytes, at: int) -> tuple[list[bytes], int]:
    count = _LENGTH.unpack_from(packet, at)[1]
    at += _LENGTH.size
    if count > MAX_ITEMS:
        raise WireError(f"a list of {count} items")
    items = []
    for _ in range(count):
        item, at = _decode_item(packet, at)
        items.append(item)
    return items, at


def _decode_item(packet: bytes, at: int) -> tuple[bytes, int]:
    (length,) = _ITEM.unpack_from(packet, at)
    at += _ITEM.size + length
    if at > len(packet):
        raise WireError("list item cut short")
    return packet[at - length : at], at


ONCE = frozenset({RUN, OPEN_SLOT, CONNECT, SPAWN, KILL})
"""Operations that name the request for which they are done, and may be done once for it."""

_SLOT = struct.Struct("<qqqqBBBBBB")
_NUMBER = struct.Struct("<q")


def encode_slot(
    slot: int,
    pid: int,
    status: int | None,
    drained: bool,
    terminal: bool,
    label: bytes,
    service: bool = False,
    request: int = 0,
    told: bool = False,
    signalled: int = 0,
) -> bytes:
    """Pack one slot's state, an item of HELLO's answer."""
    flags = (status is not None, drained, terminal, service, told)
    return _SLOT.pack(slot, pid, status or 0, request, *flags, signalled) + label


def decode_slot(item: bytes) -> tuple[int, int, int | None, bool, bool, bytes, bool, int, bool, int]:
    """Return what was given to ``encode_slot``, in that order.

    Raises:
        WireError: too short.
    """
    if len(item) < _SLOT.size:
        raise WireError("slot state cut short")
    slot, pid, status, request, exited, *flags, signalled = _SLOT.unpack_from(item)
    drained, terminal, service, told = map(bool, flags)
    known, label = status if exited else None, item[_SLOT.size :]
    return slot, pid, known, drained, terminal, label, service, request, told, signalled


def encode_slots(states: Sequence[bytes]) -> Sequence[bytes] | bytes:
    """Return slots' states as a field: a list, which every release takes, or bytes if that has no room."""
    if len(states) <= MAX_ITEMS:
        return states
    return b"".join(_ITEM.pack(len(state)) + state for state in states)


def decode_slots(field: list[bytes] | bytes) -> list[bytes]:
    """Return what was given to ``encode_slots``.

    Raises:
        WireError: cut short.
    """
    if isinstance(field, list):
        return field
    states = []
    at = 0
    try:
        while at < len(field):
            state, at = _decode_item(field, at)
            states.append(state)
    except struct.error as error:
        raise WireError("slot states cut short") from error
    return states


def encode_numbers(numbers: Iterable[int]) -> bytes:
    """Pack numbers of requests; there may be more of them than a list has items."""
    return b"".join(map(_NUMBER.pack, numbers))


def decode_numbers(packed: bytes) -> list[int]:
    """Return what was given to ``encode_numbers``.

    Raises:
        WireError: cut short.
    """
    if len(packed) % _NUMBER.size:
        raise WireError("numbers cut short")
    return [number for (number,) in _NUMBER.iter_unpack(packed)]
