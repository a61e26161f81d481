"""Cutting the bridge's stream of bytes into frames: headers, not bodies (spec bridge.md 2)."""

from __future__ import annotations

import struct

HEADER = struct.Struct("<II")
HEADER_BYTES = 16

DEFAULT_MAX_INBOUND_BYTES = 16 * 1024 * 1024


class FrameReader:
    """Cuts a stream of bytes into frames. Feed it, then take frames until None."""

    __slots__ = ("_buffer", "_whole", "max_bytes")

    def __init__(self, max_bytes: int = DEFAULT_MAX_INBOUND_BYTES) -> None:
        self.max_bytes = max_bytes
        self._buffer = bytearray()
        self._whole: bytes | None = None

    def feed(self, data: bytes | memoryview) -> None:
        """Add what was read."""
        if not self._buffer and len(data) >= HEADER_BYTES and HEADER.unpack_from(data)[1] == len(data):
            # Nearly always one read is one frame, which then need not be copied twice.
            if self._whole is None and len(data) <= self.max_bytes:
                self._whole = bytes(data)
                return
        if self._whole is not None:
            self._buffer += self._whole
            self._whole = None
        self._buffer += data

    def next_frame(self) -> bytes | None:
        """Return the next whole frame, header included, or None until more is fed.

        Raises:
            ValueError: the claimed size is impossible; the connection cannot go on.
        """
        if self._whole is not None:
            frame, self._whole = self._whole, None
            return frame
        buffer = self._buffer
        if len(buffer) < HEADER_BYTES:
            return None
        size = HEADER.unpack_from(buffer)[1]
        # Checked before the body is there: a hostile size must not make us wait for it.
        if not HEADER_BYTES <= size <= self.max_bytes:
            raise ValueError(f"a frame of {size} bytes, allowed {HEADER_BYTES}..{self.max_bytes}")
        if len(buffer) < size:
            return None
        frame = bytes(buffer[:size])
        del buffer[:size]
        return frame
