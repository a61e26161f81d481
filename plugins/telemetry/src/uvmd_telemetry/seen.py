"""What was counted since the daemon started. Written by observer threads, read by a scrape.

A request costs the addition of one number here, and of one reference where traces are
sent. Nothing is computed until somebody reads.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, deque
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from uvmd.api import Span

#: Upper bounds of the buckets of durations, in seconds; one more has no bound.
BOUNDS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
#: Spans that wait to be sent; the oldest go first.
MOST_SPANS: Final = 4096


class Durations:
    """A histogram of one kind of request with one outcome."""

    __slots__ = ("buckets", "sum_s")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0

    def add(self, duration_s: float) -> None:
        """Count one."""
        self.buckets[bisect_left(BOUNDS_S, duration_s)] += 1
        self.sum_s += duration_s


class Snapshot(NamedTuple):
    """Everything at one moment. Requests by name and outcome, ``ok`` or ``error``."""

    requests: dict[tuple[str, str], tuple[tuple[int, ...], float]]
    events: dict[str, int]
    spans_sent: int
    spans_lost: int


class Seen:
    """See the module."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._requests: dict[tuple[str, str], Durations] = {}
        self._events: Counter[str] = Counter()
        self._waiting: deque[Span] = deque(maxlen=MOST_SPANS)
        self._sent = self._lost = 0
        #: Whether spans are kept to be sent; set by the service that sends them.
        self.keep_spans = False

    def container(self, kind: str) -> None:
        """Count what happened to a container."""
        with self._mutex:
            self._events[kind] += 1

    def span(self, span: Span) -> None:
        """Count a request; a step of one is none."""
        if "request" in span.facts:
            return
        key = span.name, "error" if span.error else "ok"
        with self._mutex:
            durations = self._requests.get(key)
            if durations is None:
                durations = self._requests[key] = Durations()
            durations.add((span.end_ns - span.start_ns) / 1e9)
            if self.keep_spans:
                self._lost += len(self._waiting) == MOST_SPANS
                self._waiting.append(span)

    def take(self, most: int) -> list[Span]:
        """Take the oldest spans that wait."""
        with self._mutex:
            return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def was_sent(self, count: int) -> None:
        """Note that spans arrived."""
        with self._mutex:
            self._sent += count

    def was_lost(self, count: int) -> None:
        """Note that spans will never arrive."""
        with self._mutex:
            self._lost += count

    def snapshot(self) -> Snapshot:
        """Return everything as it is now."""
        with self._mutex:
            requests = {key: (tuple(one.buckets), one.sum_s) for key, one in self._requests.items()}
            return Snapshot(requests, dict(self._events), self._sent, self._lost)


#: The daemon's own.
HERE = Seen()
