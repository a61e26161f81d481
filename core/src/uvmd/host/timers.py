"""Deadlines and deferred calls of the poll thread.

Only :meth:`Timers.post` may be called from any thread. The loop sleeps for what
:meth:`Timers.run_due` returns; no thread sleeps for a timer. A thread that polls beside
the loop's calls as that one does, in its turn; the loop is woken if it would sleep too long.
"""

from __future__ import annotations

import heapq
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)

Call = Callable[[], None]


class Timer:
    """A call that is due at ``when`` on the monotonic clock."""

    __slots__ = ("when", "call", "_timers")

    def __init__(self, when: float, call: Call, timers: Timers) -> None:
        self.when = when
        self.call: Call | None = call
        self._timers = timers

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when

    def cancel(self) -> None:
        """Make sure the call does not happen; fine at any time."""
        if self.call is not None:
            self.call = None
            self._timers.forget_one()


class Timers:
    """The poll thread's timers. ``wake`` must make the loop come round at once."""

    def __init__(self, wake: Call, clock: Callable[[], float] = time.monotonic) -> None:
        self._wake = wake
        self._clock = clock
        self._heap: list[Timer] = []
        self._cancelled = 0
        self._posted: deque[Call] = deque()
        self._loop = threading.get_ident()
        #: When the loop comes round by itself.
        self._round = math.inf

    def call_later(self, delay_s: float, call: Call) -> Timer:
        """Have ``call`` called once on the poll thread, ``delay_s`` from now."""
        timer = Timer(self._clock() + delay_s, call, self)
        heapq.heappush(self._heap, timer)
        if timer.when < self._round and threading.get_ident() != self._loop:
            self._wake()
        return timer

    def post(self, call: Call) -> None:
        """Have ``call`` called on the poll thread soon. From any thread."""
        self._posted.append(call)
        self._wake()

    def forget_one(self) -> None:
        """Note that a timer was cancelled. Long waits that end early must not pile up."""
        self._cancelled += 1
        if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
            self._heap = [timer for timer in self._heap if timer.call is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def run_due(self) -> float | None:
        """Make the posted calls and those that are due; return the seconds until the next one.

        None: there is none. A call that raises is logged; the others still happen.
        """
        self._loop = threading.get_ident()
        left_s = self._run_due()
        self._round = math.inf if left_s is None else self._clock() + left_s
        return left_s

    def _run_due(self) -> float | None:
        while self._posted:
            _run(self._posted.popleft())
        while self._heap:
            timer = self._heap[0]
            if timer.call is None:
                heapq.heappop(self._heap)
                self._cancelled -= 1
                continue
            now = self._clock()
            if timer.when > now:
                return 0.0 if self._posted else timer.when - now
            heapq.heappop(self._heap)
            call, timer.call = timer.call, None
            _run(call)
        return 0.0 if self._posted else None


def _run(call: Call) -> None:
    try:
        call()
    except Exception:
        log.exception("a deferred call failed, ignoring")
