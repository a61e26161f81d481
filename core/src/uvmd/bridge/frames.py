"""Frames: sixteen bytes of header and a body of JSON (spec bridge.md 2).

The monitor splits the stream in production and checks sizes by the same limits; here is
the encoder that everyone uses and the decoder of clients and tests. Nothing here knows
what a body means.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from uvmd.errors import ProtocolError

HEADER = struct.Struct("<IIQ")
HEADER_BYTES = 16
#: The host tears the bridge down at a larger frame, header included.
MAX_OUTBOUND_BYTES = 0x1_0000
#: Default for what a host may send; encoded policies and specs do exceed 64 KiB.
MAX_INBOUND_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. ``type`` is the type word, ``id`` the requester's number, ``body`` JSON text."""

    type: int
    id: int
    body: bytes

    def encode(self) -> bytes:
        """Return the frame as it travels."""
        return HEADER.pack(self.type, HEADER_BYTES + len(self.body), self.id) + self.body


def split(frame: bytes) -> Frame:
    """Return the parts of ``frame``, which is exactly one frame.

    Raises:
        ProtocolError: it is not.
    """
    if len(frame) < HEADER_BYTES:
        raise ProtocolError(f"a frame of {len(frame)} bytes is shorter than its header")
    type_, size, id_ = HEADER.unpack_from(frame)
    if size != len(frame):
        raise ProtocolError(f"a frame claims {size} bytes and has {len(frame)}")
    return Frame(type_, id_, frame[HEADER_BYTES:])


class Decoder:
    """Cuts a stream into frames. Holds at most one frame's bytes and what was fed with it."""

    __slots__ = ("_buffer", "_limit")

    def __init__(self, max_bytes: int = MAX_INBOUND_BYTES) -> None:
        self._buffer = bytearray()
        self._limit = max_bytes

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the stream."""
        self._buffer += chunk

    def next_frame(self) -> Frame | None:
        """Return the next whole frame, or None until more bytes are fed.

        Raises:
            ProtocolError: the claimed size is impossible; drop the connection.
        """
        if len(self._buffer) < HEADER_BYTES:
            return None
        type_, size, id_ = HEADER.unpack_from(self._buffer)
        # Checked before waiting for the body: a hostile size must not make us buffer it.
        if not HEADER_BYTES <= size <= self._limit:
            raise ProtocolError(f"a frame of {size} bytes, allowed are {HEADER_BYTES} to {self._limit}")
        if len(self._buffer) < size:
            return None
        body = bytes(self._buffer[HEADER_BYTES:size])
        del self._buffer[:size]
        return Frame(type_, id_, body)

    @property
    def pending_bytes(self) -> int:
        """How many bytes wait for the rest of their frame; not 0 at the end is a torn frame."""
        return len(self._buffer)
