"""The host's requests that have no answer yet, for the daemon that comes next.

A request is kept from its frame to the moment in which its answer was wholly written, and
with it whatever must not be done twice: the answers to what the daemon did for it once, and
the notes that it left. So a daemon that is killed in the middle of a request leaves behind
what the next one needs to go on, and that is gone with the request.
"""

from __future__ import annotations

import os
import time

from uvmd.monitor import packets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from uvmd.monitor.answer import Answer

HIGH_BYTES = 64 * 1024 * 1024
LOW_BYTES = 32 * 1024 * 1024
#: Requests of a connection that may be open, since all their answers, at 64 KiB each, may be there
#: before the first is written. Waits are not counted: a host has one for every process.
MANY = 1024
FEWER = 512
_WAIT = (0x10100601).to_bytes(4, "little")
_NEGOTIATE = (0x10100B01).to_bytes(4, "little")
LARGE_FRAME_BYTES = 64 * 1024
#: A request has a handful; nobody must make us hold more.
MAX_NOTES = 64
MAX_NOTE_BYTES = 256 * 1024

#: What a request costs beside its frame.
_OVERHEAD_BYTES = 256


class Request:
    """One request. ``attempts``: how many daemons were given it."""

    __slots__ = (
        "_frame", "_length", "_memfd", "answer", "attempts", "generation", "is_wait", "notes", "number",
        "once", "size", "slot",
    )  # fmt: skip

    #: Whose end the answer tells, once there is one.
    slot: int

    def __init__(self, number: int, generation: int, frame: bytes) -> None:
        self.number = number
        self.generation = generation
        self.size = len(frame) + _OVERHEAD_BYTES
        self.is_wait = frame.startswith(_WAIT)
        self.attempts = 0
        #: The answer from when it was given until it was wholly written.
        self.answer: bytes | None = None
        self.once: dict[bytes, Once] | None = None
        self.notes: dict[bytes, bytes] | None = None
        self._memfd = -1
        self._length = len(frame)
        self._frame = frame
        if len(frame) > LARGE_FRAME_BYTES:
            # File pages are not the monitor's own memory.
            try:
                self._memfd = packets.sealed("uvmd-request", frame)
                self._frame = b""
            except OSError:  # no descriptor now: it costs memory, not the request
                pass

    @property
    def frame(self) -> bytes:
        """The frame as it came; nothing once there is an answer."""
        if self._memfd < 0:
            return self._frame
        return os.pread(self._memfd, self._length, 0)

    def close(self) -> int:
        """Give the frame's memory back; return how many bytes that were."""
        length, self._length, self._frame = self._length, 0, b""
        if self._memfd >= 0:
            os.close(self._memfd)
            self._memfd = -1
        return length


class Once:
    """The answer to what is done once for a request, whichever daemon asks.

    Stands in for an ``Answer``: it is always wanted, since the next daemon will ask too.
    """

    __slots__ = ("_answer", "_error", "_fields")

    wanted = True

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._fields: tuple[int | bytes | Sequence[bytes], ...] | None = None
        self._error: OSError | None = None

    def give(self, *fields: int | bytes | Sequence[bytes], fds: Sequence[int] = ()) -> None:
        """Answer, and remember it."""
        self._fields = fields
        self._answer.give(*fields)

    def fail(self, error: OSError) -> None:
        """Answer with an error, and remember it."""
        self._error = error
        self._answer.fail(error)

    def ask(self, answer: Answer) -> None:
        """Answer another daemon: now, or when it is done."""
        self._answer = answer
        if self._error is not None:
            answer.fail(self._error)
        elif self._fields is not None:
            answer.give(*self._fields)


class Kept:
    """All requests without a written answer, in their order, and exit news not yet written."""

    def __init__(self) -> None:
        # Not from 1: the journal outlives the monitor, and another one's numbers must not
        # be taken for these.
        self._next = time.monotonic_ns() // 1000
        self._requests: dict[int, Request] = {}
        #: Notifications that tell of the end of a slot's process, by slot, until written.
        self.notices: dict[int, bytes] = {}
        self.bytes = 0
        #: Those of the present connection.
        self.recent_bytes = 0
        #: Requests of the present connection without an answer, waits not counted.
        self.open = 0
        self._generation = 0

    def begin(self, generation: int) -> None:
        """Count for a new connection: its Negotiate must not wait for older requests."""
        self._generation, self.open, self.recent_bytes = generation, 0, 0

    def add(self, generation: int, frame: bytes) -> Request:
        """Keep a frame of the host."""
        number = self._next
        self._next = number + 1
        request = self._requests[number] = Request(number, generation, frame)
        self._count(request, request.size)
        self.open += self._counts(request)
        return request

    def get(self, number: int) -> Request | None:
        """Return a request that is kept."""
        return self._requests.get(number)

    def answered(self, number: int, frame: bytes, slot: int = 0) -> None:
        """Its answer was given, which tells of the end of ``slot``; it is not written yet."""
        request = self._requests.get(number)
        if request is not None:
            # Counted as long as it waits, in place of the frame, for which nobody will ask again.
            self.open -= self._counts(request)
            more = len(frame) - len(request.answer or b"") - request.close()
            request.size += more
            self._count(request, more)
            request.answer, request.slot = frame, slot

    def note(self, number: int, name: bytes, value: bytes) -> None:
        """Keep a note beside a request; beyond the limits it is dropped."""
        request = self._requests.get(number)
        if request is None or len(value) > MAX_NOTE_BYTES:
            return
        if request.notes is None:
            request.notes = {}
        if name in request.notes or len(request.notes) < MAX_NOTES:
            more = len(value) - len(request.notes.get(name, b""))
            request.size += more
            self._count(request, more)
            request.notes[name] = value

    def forget(self, number: int) -> None:
        """Its answer was written, or there will be none."""
        request = self._requests.pop(number, None)
        if request is not None:
            self._count(request, -request.size)
            self.open -= self._counts(request)
            request.close()

    @property
    def full(self) -> bool:
        """True when more is kept than should be, of whichever connection."""
        return self.bytes > HIGH_BYTES

    def leaves_room(self, frame: bytes) -> bool:
        """Return whether a new connection may begin with this, whatever others have left.

        With Negotiate always, or what waits for it would never go; anything else would add up.
        """
        return not self.full or (len(frame) <= LARGE_FRAME_BYTES and frame.startswith(_NEGOTIATE))

    def _count(self, request: Request, more: int) -> None:
        self.bytes += more
        if request.generation == self._generation:
            self.recent_bytes += more

    def _counts(self, request: Request) -> bool:
        return request.generation == self._generation and request.answer is None and not request.is_wait

    def __iter__(self) -> Iterator[Request]:
        return iter(list(self._requests.values()))
