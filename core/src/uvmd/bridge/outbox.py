"""What is to be sent to the host, in one queue that outlives connections.

A new connection gets nothing of what was queued before its Negotiate was answered: a host
that has not registered its containers yet takes a notification for a fatal error (spec
bridge.md 12.1 and 12.3). Answers to what the new connection itself asked go out at once.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from threading import Lock

from uvmd.bridge.frames import HEADER
from uvmd.bridge.identifiers import EVENT, NOTIFICATION, Message, kind, response_type

log = logging.getLogger(__name__)

#: While no host listens; each frame is at most 64 KiB.
MAX_KEPT_BYTES = 32 << 20
_NEGOTIATED = response_type(Message.NEGOTIATE)
_WAITED = response_type(Message.WAIT)


class Outbox:
    """Called from any thread. ``send(generation, frame)`` hands a frame to the monitor."""

    def __init__(self, send: Callable[[int, bytes], None]) -> None:
        self._send = send
        self._lock = Lock()
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        # Frames at the front that came back from a lost connection, in their order.
        self._returned = 0
        self._generation: int | None = None
        self._released = False

    def connected(self, generation: int) -> None:
        """Begin with a new connection, on which nothing is negotiated."""
        with self._lock:
            self._generation, self._released = generation, False

    def disconnected(self) -> None:
        """Keep everything from now on."""
        with self._lock:
            self._generation, self._released = None, False

    def release(self, generation: int) -> None:
        """Send what was kept: Negotiate has been answered on ``generation``."""
        with self._lock:
            if generation != self._generation:
                return
            self._released = True
            kept, self._kept = self._kept, deque()
            self._kept_bytes = self._returned = 0
            for frame in kept:
                self._hand_over(generation, frame)

    def put(self, frame: bytes, generation: int | None = None) -> None:
        """Send a frame, or keep it. ``generation`` is the connection that asked; None for a notification."""
        with self._lock:
            if self._generation is not None and (self._released or generation == self._generation):
                self._hand_over(self._generation, frame)
            elif _type_of(frame) != _NEGOTIATED:
                self._keep(frame, len(self._kept))

    def offer(self, frame: bytes, generation: int) -> None:
        """Send a frame on a connection that has negotiated; never keep it for another one."""
        with self._lock:
            if self._released and generation == self._generation:
                self._hand_over(generation, frame)

    def returned(self, frame: bytes) -> None:
        """Take back a frame that a lost connection did not carry: it goes before later ones."""
        if _type_of(frame) in (_NEGOTIATED, EVENT):
            # Every connection negotiates anew: an answer that nobody waits for is fatal, and so
            # is an event to a host that did not ask for any.
            return
        with self._lock:
            if self._released and self._generation is not None:
                self._hand_over(self._generation, frame)
            else:
                self._keep(frame, self._returned)
                self._returned += 1

    @property
    def kept(self) -> int:
        """How many frames wait for a host."""
        return len(self._kept)

    def _hand_over(self, generation: int, frame: bytes) -> None:
        try:
            self._send(generation, frame)
        except OSError as error:
            # The monitor is gone or going; the request's thread has more to do than to die of it.
            log.error("a frame could not be handed to the monitor", extra={"error": str(error)})
            self._keep(frame, len(self._kept))

    def _keep(self, frame: bytes, position: int) -> None:
        if _type_of(frame) == EVENT:
            return
        self._kept.insert(position, frame)
        self._kept_bytes += len(frame)
        while self._kept_bytes > MAX_KEPT_BYTES and self._drop_one():
            pass

    def _drop_one(self) -> bool:
        """Drop the oldest answer whose asker gave up with the connection; waits and exits stay."""
        for position, frame in enumerate(self._kept):
            if _type_of(frame) != _WAITED and kind(_type_of(frame)) != NOTIFICATION:
                del self._kept[position]
                self._kept_bytes -= len(frame)
                self._returned -= position < self._returned
                log.warning("too much waits for a host: dropped an answer", extra={"bytes": len(frame)})
                return True
        return False


def _type_of(frame: bytes) -> int:
    type_: int = HEADER.unpack_from(frame)[0]
    return type_
