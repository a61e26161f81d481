"""What is to be sent to the host, in one queue that outlives connections.

A new connection gets nothing of what was queued before its Negotiate was answered: a host
that has not registered its containers yet takes a notification for a fatal error (spec
bridge.md 12.1 and 12.3). Answers to what the new connection itself asked go out at once.
What is kept here is kept by the monitor too, for the daemon that comes after this one.
"""

from __future__ import annotations

import logging
from collections import deque
from threading import Lock
from typing import NamedTuple, Protocol

from uvmd.bridge.frames import HEADER
from uvmd.bridge.identifiers import EVENT, NOTIFICATION, Message, kind, response_type

log = logging.getLogger(__name__)

#: While no host listens; each frame is at most 64 KiB.
MAX_KEPT_BYTES = 32 << 20
_NEGOTIATED = response_type(Message.NEGOTIATE)
_WAITED = response_type(Message.WAIT)


class Parcel(NamedTuple):
    """A frame, and what the monitor must know of it to keep it for the next daemon.

    ``request`` is what it answers, ``slot`` whose end it tells, ``state`` (0 or more) what it
    makes of its connection.
    """

    frame: bytes
    request: int = 0
    slot: int = 0
    state: int = -1


class Monitor(Protocol):
    """The part of the monitor's link that is needed here."""

    def send_frame(
        self, generation: int, frame: bytes, request: int = 0, slot: int = 0, state: int = -1
    ) -> None: ...

    def forget_request(self, request: int) -> None: ...


class Outbox:
    """Called from any thread. ``monitor`` takes what is sent, and remembers what is kept."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._lock = Lock()
        self._kept: deque[Parcel] = deque()
        self._kept_bytes = 0
        # Frames at the front that came back from a lost connection, in their order.
        self._returned = 0
        self._generation: int | None = None
        self._released = False

    def connected(self, generation: int, *, negotiated: bool = False) -> None:
        """Begin with a connection; nothing is negotiated on a new one."""
        with self._lock:
            self._generation, self._released = generation, False
        if negotiated:
            self.release(generation)

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
            for parcel in kept:
                self._hand_over(generation, parcel)

    def put(self, parcel: Parcel, generation: int | None = None) -> None:
        """Send a frame, or keep it. ``generation`` is the connection that asked; None for a notification."""
        with self._lock:
            if self._generation is not None and (self._released or generation == self._generation):
                self._hand_over(self._generation, parcel)
            elif _type_of(parcel) != _NEGOTIATED:
                self._keep(parcel, len(self._kept))
                # Should this daemon die, the next one has it.
                self._tell(0, parcel)
            else:
                self._forget(parcel)

    def offer(self, frame: bytes, generation: int) -> None:
        """Send a frame on a connection that has negotiated; never keep it for another one."""
        with self._lock:
            if self._released and generation == self._generation:
                self._hand_over(generation, Parcel(frame))

    def returned(self, parcel: Parcel) -> None:
        """Take back a frame that a lost connection did not carry: it goes before later ones."""
        if _type_of(parcel) in (_NEGOTIATED, EVENT):
            # Every connection negotiates anew: an answer that nobody waits for is fatal, and so
            # is an event to a host that did not ask for any.
            self._forget(parcel)
            return
        with self._lock:
            if self._released and self._generation is not None:
                self._hand_over(self._generation, parcel)
            else:
                self._keep(parcel, self._returned)
                self._returned += 1

    @property
    def kept(self) -> int:
        """How many frames wait for a host."""
        return len(self._kept)

    def _hand_over(self, generation: int, parcel: Parcel) -> None:
        if not self._tell(generation, parcel):
            self._keep(parcel, len(self._kept))

    def _tell(self, generation: int, parcel: Parcel) -> bool:
        try:
            self._monitor.send_frame(generation, *parcel)
        except OSError as error:
            # The monitor is gone or going; the request's thread has more to do than to die of it.
            log.error("a frame could not be handed to the monitor", extra={"error": str(error)})
            return False
        return True

    def _forget(self, parcel: Parcel) -> None:
        if parcel.request:
            try:
                self._monitor.forget_request(parcel.request)
            except OSError as error:
                log.error("the monitor cannot be told", extra={"error": str(error)})

    def _keep(self, parcel: Parcel, position: int) -> None:
        if _type_of(parcel) == EVENT:
            return
        self._kept.insert(position, parcel)
        self._kept_bytes += len(parcel.frame)
        while self._kept_bytes > MAX_KEPT_BYTES and self._drop_one():
            pass

    def _drop_one(self) -> bool:
        """Drop the oldest answer whose asker gave up with the connection; waits and exits stay."""
        for position, parcel in enumerate(self._kept):
            if _type_of(parcel) != _WAITED and kind(_type_of(parcel)) != NOTIFICATION:
                del self._kept[position]
                self._kept_bytes -= len(parcel.frame)
                self._returned -= position < self._returned
                log.warning(
                    "too much waits for a host: dropped an answer", extra={"bytes": len(parcel.frame)}
                )
                self._forget(parcel)
                return True
        return False


def _type_of(parcel: Parcel) -> int:
    type_: int = HEADER.unpack_from(parcel.frame)[0]
    return type_
