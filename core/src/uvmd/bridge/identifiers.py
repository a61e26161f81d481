"""The type word of a frame: message numbers and what their bits mean (spec bridge.md 2.1, 2.2)."""

from __future__ import annotations

from enum import IntEnum

KIND_MASK = 0xF000_0000
REQUEST = 0x1000_0000
RESPONSE = 0x2000_0000
NOTIFICATION = 0x3000_0000

#: The one notification of the protocol, as a whole type word.
CONTAINER_NOTIFICATION = 0x3010_0101

#: uvmd's own events, in a category that no reference uses; only for those who asked.
EVENT = 0x3F00_0101

#: The only protocol version; the host insists on it.
PROTOCOL_VERSION = 4
#: What a connection speaks before Negotiate.
NO_VERSION = 0
#: The activity id that the host always sends, and the container id that means the VM itself.
ZERO_GUID = "00000000-0000-0000-0000-000000000000"
#: The oldest schema of a container document that is accepted, (major, minor).
SCHEMA_VERSION = (2, 1)


class Message(IntEnum):
    """The requests a guest answers; the value is the whole type word."""

    CREATE = 0x1010_0101
    START = 0x1010_0201
    SHUTDOWN_GRACEFUL = 0x1010_0301
    SHUTDOWN_FORCED = 0x1010_0401
    EXECUTE = 0x1010_0501
    WAIT = 0x1010_0601
    SIGNAL = 0x1010_0701
    RESIZE = 0x1010_0801
    GET_PROPERTIES = 0x1010_0901
    MODIFY = 0x1010_0A01
    NEGOTIATE = 0x1010_0B01
    DUMP_STACKS = 0x1010_0C01
    DELETE = 0x1010_0D01


def response_type(request_type: int) -> int:
    """Return the type word of the answer. Blind on purpose: any kind gets a response."""
    return RESPONSE | (request_type & ~KIND_MASK)


def kind(type_word: int) -> int:
    """Return the kind bits: REQUEST, RESPONSE, NOTIFICATION or what else was sent."""
    return type_word & KIND_MASK
