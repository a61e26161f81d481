"""Spans: what a request was, when, how long and with what end, for whoever traces.

A span costs nothing until somebody wants it: a listener, or the log at level debug. It
is parented by the W3C trace context that a caller sent (``otsc``, spec bridge.md 10). Its
steps are noted for listeners only, and become spans of their own when somebody asks for them.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from uvmd.observe.lines import FLAT, time_text
from uvmd.observe.steps import Trace, steps_of

log = logging.getLogger(__name__)

# https://www.w3.org/TR/trace-context/#traceparent-header; a later version may have more fields.
_TRACEPARENT = re.compile("([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_MAX_TRACESTATE = 512
_MOST_ID = (1 << 64) - 1


class Span(NamedTuple):
    """One request, ended. Times in nanoseconds, ids in lower-case hex."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    trace_state: str
    started_ns: int
    duration_ns: int
    message_type: int
    message_id: int
    response_type: int
    activity_id: str
    container_id: str
    error: str
    notes: list[list[Any]]
    began_ns: int

    @property
    def end_ns(self) -> int:
        """When it ended."""
        return self.started_ns + self.duration_ns

    def parts(self) -> Iterator[Part]:
        """Yield its steps as spans, in the order of their begin."""
        # One random number for all: ids are different within a trace, and asking the kernel
        # for each would cost more than the rest.
        first, ids = int(self.span_id, 16), [self.span_id]
        to_wall = self.started_ns - self.began_ns
        for step in steps_of(self.notes, self.began_ns + self.duration_ns):
            ids.append(f"{(first + len(ids)) & _MOST_ID:016x}")
            yield Part(
                step.name,
                ids[-1],
                ids[step.parent + 1],
                step.began_ns + to_wall,
                step.ended_ns + to_wall,
                step.error,
            )


class Part(NamedTuple):
    """One step of a request, of the same trace."""

    name: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    error: str


class Spans:
    """Where requests report their end, and where listeners hear of it."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[Span], None]] = []

    def add_listener(self, listener: Callable[[Span], None]) -> None:
        """Have ``listener`` called with every span; it must return at once."""
        self._listeners.append(listener)

    @property
    def heard(self) -> bool:
        """Whether somebody listens: only then are steps noted."""
        return bool(self._listeners)

    @property
    def wanted(self) -> bool:
        """Whether anybody would hear of a span."""
        return bool(self._listeners) or log.isEnabledFor(logging.DEBUG)

    def end(
        self,
        *,
        name: str,
        message_type: int,
        message_id: int,
        response_type: int,
        activity_id: str,
        container_id: str,
        carrier: Mapping[str, str] | None,
        duration_s: float,
        error: str,
        trace: Trace | None = None,
    ) -> None:
        """Report a request that has just ended. ``carrier`` holds the caller's trace context."""
        trace_id, parent_id, trace_state = parent_of(carrier)
        duration_ns = int(duration_s * 1e9)
        random = os.urandom(24).hex()
        span = Span(
            name=name,
            trace_id=trace_id or random[16:],
            span_id=random[:16],
            parent_id=parent_id,
            trace_state=trace_state,
            started_ns=time.time_ns() - duration_ns,
            duration_ns=duration_ns,
            message_type=message_type,
            message_id=message_id,
            response_type=response_type,
            activity_id=activity_id,
            container_id=container_id,
            error=error,
            notes=[] if trace is None else trace.take(),
            began_ns=0 if trace is None else trace.began_ns,
        )
        if log.isEnabledFor(logging.DEBUG):
            _log(span)
        for listener in self._listeners:
            try:
                listener(span)
            except Exception as failure:
                log.warning("a span listener failed, ignoring", extra={"error": type(failure).__name__})


def parent_of(carrier: Mapping[str, str] | None) -> tuple[str, str, str]:
    """Return trace id, parent span id and trace state of a W3C carrier; empty if it has none."""
    if not carrier:
        return "", "", ""
    found = _TRACEPARENT.fullmatch(carrier.get("traceparent", ""))
    if found is None or found[1] == "ff" or (found[1] == "00" and found[4]):
        return "", "", ""
    trace_id, parent_id = found[2], found[3]
    if not int(trace_id, 16) or not int(parent_id, 16):
        return "", "", ""
    trace_state = carrier.get("tracestate", "")
    return trace_id, parent_id, trace_state if len(trace_state) <= _MAX_TRACESTATE else ""


def _log(span: Span) -> None:
    # The keys are the reference's: people have searches for them.
    facts = {
        "name": span.name,
        "traceID": span.trace_id,
        "spanID": span.span_id,
        "parentSpanID": span.parent_id,
        "startTime": time_text(span.started_ns / 1e9),
        "endTime": time_text(span.end_ns / 1e9),
        "duration": f"{span.duration_ns / 1e6:.3f}ms",
        "message-id": span.message_id,
        "message-type": f"0x{span.message_type:08x}",
        "response-message-type": f"0x{span.response_type:08x}",
        "activityID": span.activity_id,
        "cid": span.container_id,
    }
    if span.error:
        facts["error"] = span.error
    log.debug("Span", extra={FLAT: facts})
