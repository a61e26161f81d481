"""What was counted and kept since the daemon started. Written by an observer's thread, read by others.

A request costs the addition of one number here, and of references to its spans where they
are kept or sent. Nothing is computed until somebody reads.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from uvmd.api import Span

#: Upper bounds of the buckets of durations, in seconds; one more has no bound.
BOUNDS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
#: Spans that wait to be sent; the oldest go first.
MOST_SPANS: Final = 8192
#: Spans that are kept to be looked at, if nothing else is configured; one takes some 100 bytes.
KEPT_SPANS: Final = 2048
NULL_ID: Final = "00000000-0000-0000-0000-000000000000"
#: People who look (``uvmctl ps``, ``top``) must not push out what they look for.
_LOOKS: Final = ("get_properties", NULL_ID)
_NOBODYS: Final = ("", NULL_ID)


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


class Request(NamedTuple):
    """A request that was answered, kept small: its steps are packed, in the order of their begin."""

    name: str
    #: What it is asked for by: its activity, or, since few hosts give one, its trace.
    id: str
    trace_id: str
    container: str
    start_ns: int
    duration_ns: int
    error: str
    names: tuple[str, ...]
    #: Of each step: depth, begin after the request's, duration; in ns.
    numbers: array[int]
    #: Of each step; none at all, mostly.
    errors: tuple[str, ...]

    @property
    def spans(self) -> int:
        """How many spans it was."""
        return 1 + len(self.names)

    def steps(self) -> list[tuple[str, int, int, int, str]]:
        """Return name, depth, begin, duration and error of each step."""
        numbers = zip(self.numbers[::3], self.numbers[1::3], self.numbers[2::3], strict=True)
        errors = self.errors or ("",) * len(self.names)
        return [(name, *of, error) for name, of, error in zip(self.names, numbers, errors, strict=True)]


def packed(span: Span, steps: Sequence[Span]) -> Request:
    """Return what is kept of a request."""
    activity = str(span.facts.get("activity", ""))
    depths = {span.span_id: -1}
    numbers = array("q")
    for step in steps:
        depth = depths[step.span_id] = depths.get(step.parent_id, -1) + 1
        numbers.extend((depth, step.start_ns - span.start_ns, step.end_ns - step.start_ns))
    # Of lists: a tuple made of a generator is resized, and Python keeps thousands such for nothing.
    names, errors = tuple([step.name for step in steps]), tuple([step.error for step in steps])
    return Request(
        span.name,
        span.trace_id if activity in _NOBODYS else activity,
        span.trace_id,
        str(span.facts.get("container", "")),
        span.start_ns,
        span.end_ns - span.start_ns,
        span.error,
        names,
        numbers,
        errors if any(errors) else (),
    )


class Seen:
    """See the module."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._changed = threading.Condition(self._mutex)
        self._requests: dict[tuple[str, str], Durations] = {}
        self._events: Counter[str] = Counter()
        #: Of the request whose own span comes next; they come from one thread, one request at a time.
        self._steps: list[Span] = []
        self._kept: deque[Request] = deque()
        self._kept_spans = 0
        self._most_kept = KEPT_SPANS
        self._waiting: deque[Span] = deque(maxlen=MOST_SPANS)
        self._sent = self._lost = 0
        #: Whether spans are kept to be sent; set by the service that sends them.
        self.keep_spans = False

    def container(self, kind: str) -> None:
        """Count what happened to a container."""
        with self._mutex:
            self._events[kind] += 1

    def span(self, span: Span) -> None:
        """Take a step of a request, or, after its steps, the request."""
        if "request" in span.facts:
            self._steps.append(span)
            return
        steps, self._steps = self._steps, []
        key = span.name, "error" if span.error else "ok"
        with self._mutex:
            durations = self._requests.get(key)
            if durations is None:
                durations = self._requests[key] = Durations()
            durations.add((span.end_ns - span.start_ns) / 1e9)
            if (span.name, span.facts.get("container")) != _LOOKS:
                self._keep(packed(span, steps))
            if self.keep_spans:
                self._queue([span, *steps])

    def _keep(self, request: Request) -> None:
        self._kept.append(request)
        self._kept_spans += request.spans
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        while self._kept_spans > self._most_kept:
            self._kept_spans -= self._kept.popleft().spans

    def _queue(self, spans: list[Span]) -> None:
        before = len(self._waiting)
        self._lost += max(0, before + len(spans) - MOST_SPANS)
        self._waiting.extend(spans)
        if before == 0 or len(self._waiting) >= MOST_SPANS // 2:
            self._changed.notify()

    # Traces that people look at

    def keep(self, most_spans: int) -> None:
        """Keep that many spans from now on, those of the newest requests."""
        with self._mutex:
            self._most_kept = most_spans
            self._drop_oldest()

    @property
    def most_kept(self) -> int:
        """How many spans are kept."""
        return self._most_kept

    def kept(self) -> list[Request]:
        """Return the requests that are kept, oldest first."""
        with self._mutex:
            return list(self._kept)

    # Spans that are sent

    def wait(self, ending: threading.Event, interval_s: float) -> None:
        """Wait for a span, and then for more until the time is up or there are many.

        An idle daemon is not woken. Returns at once when ``ending`` is set and :meth:`wake` called.
        """
        with self._mutex:
            self._changed.wait_for(lambda: self._waiting or ending.is_set())
            self._changed.wait_for(
                lambda: len(self._waiting) >= MOST_SPANS // 2 or ending.is_set(), interval_s
            )

    def wake(self) -> None:
        """Have :meth:`wait` look whether the end has come."""
        with self._mutex:
            self._changed.notify_all()

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
