"""The event loop: one epoll, one heap of timers, nothing that blocks.

Handlers are registered edge-triggered where their owner always goes on until the
kernel says EAGAIN; that saves a system call each time a stream changes direction.
"""

from __future__ import annotations

import errno
import heapq
import select
import time

from uvmd.monitor import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

IN = select.EPOLLIN
OUT = select.EPOLLOUT
ERROR = select.EPOLLERR
HANGUP = select.EPOLLHUP | select.EPOLLRDHUP
EDGE = select.EPOLLET

#: The kernel had no memory for a socket at this moment. No event says when it has: ask again.
NO_MEMORY = (errno.ENOMEM, errno.ENOBUFS)

_TIDY_TIMERS = 256
_LONGEST_WAIT_S = 3600.0


class Timer:
    """A call that is due at a time; ``cancel`` makes it a no-op."""

    __slots__ = ("call", "when")

    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when = when
        self.call: Callable[[], None] | None = call

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when

    def cancel(self) -> None:
        """Drop the call. It stays in the heap until due; that is cheaper than to look for it."""
        self.call = None


class Loop:
    """Calls handlers when their descriptor or time is ready, until ``stop``."""

    def __init__(self, on_failure: Callable[[BaseException], None]) -> None:
        #: Where every handler reads to, and from where it takes what there was, before it returns.
        #: A large block for each read, cut to the little that came and must stay, would leave the
        #: heap full of holes too small for the next.
        self.room = memoryview(bytearray(wire.ROOM_BYTES))
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[Timer] = []
        self._tidy_at = _TIDY_TIMERS
        self._soon: list[Callable[[], None]] = []
        self._on_failure = on_failure
        self._stopped = False

    @staticmethod
    def now() -> float:
        """Return the clock that timers go by, in seconds."""
        return time.monotonic()

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Call handler(events) when fd is ready. A descriptor has one handler.

        A file that epoll refuses (a regular file as stdin) is always ready: one call is
        made soon, and its owner goes on by itself.
        """
        try:
            self._epoll.register(fd, events)
        except PermissionError:
            self.soon(lambda: handler(events & (IN | OUT)))
            return
        self._handlers[fd] = handler

    def change(self, fd: int, events: int) -> None:
        """Watch for other events."""
        if fd in self._handlers:
            self._epoll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        """Forget fd; must come before it is closed. Unknown descriptors are fine."""
        if self._handlers.pop(fd, None) is not None:
            try:
                self._epoll.unregister(fd)
            except OSError as error:
                if error.errno not in (errno.EBADF, errno.ENOENT):
                    raise

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Call after a delay, unless cancelled."""
        timer = Timer(self.now() + delay_s, call)
        heapq.heappush(self._timers, timer)
        if len(self._timers) > self._tidy_at:
            self._tidy()
        return timer

    def soon(self, call: Callable[[], None]) -> None:
        """Call once in the next round, after the descriptors that are ready by then."""
        self._soon.append(call)

    def stop(self) -> None:
        """Make ``run`` return after this round."""
        self._stopped = True

    def run(self) -> None:
        """Serve until ``stop``. A handler's failure is reported, and the loop goes on."""
        self._stopped = False
        while not self._stopped:
            self._guard(self._round)

    def _round(self) -> None:
        ready = [(fd, events, self._handlers.get(fd)) for fd, events in self._epoll.poll(self._timeout())]
        for fd, events, handler in ready:
            # An earlier handler of this round may have closed it, and its number be another's by
            # now, for whom the event is not. That one has its own in the next round.
            if handler is not None and self._handlers.get(fd) is handler:
                try:
                    handler(events)
                except Exception as error:
                    self._on_failure(error)
        if self._soon:
            calls, self._soon = self._soon, []
            for call in calls:
                self._guard(call)
        # Looked up each time: a call may add timers, and so have the heap tidied.
        while self._timers and self._timers[0].when <= time.monotonic():
            due = heapq.heappop(self._timers).call
            if due is not None:
                self._guard(due)

    def _tidy(self) -> None:
        """Drop cancelled timers: nearly all are deadlines that were not needed."""
        self._timers = [timer for timer in self._timers if timer.call is not None]
        heapq.heapify(self._timers)
        self._tidy_at = max(_TIDY_TIMERS, 2 * len(self._timers))

    def _guard(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            self._on_failure(error)

    def _timeout(self) -> float:
        if self._soon:
            return 0
        timers = self._timers
        while timers and timers[0].call is None:
            heapq.heappop(timers)
        if not timers:
            return -1
        # epoll_wait(2) counts milliseconds in an int; waking up for nothing now and then is fine.
        return min(max(0.0, timers[0].when - time.monotonic()), _LONGEST_WAIT_S)
