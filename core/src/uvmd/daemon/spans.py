"""A request and its steps as the spans that plugins are told of (the hook ``span_ended``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from uvmd.api.containers import Span as ToldSpan
from uvmd.observe.spans import Span

_MOST_ID: Final = 128
_MOST_ERROR: Final = 1024


class Told:
    """Goes over the spans of one request: its steps, and at last itself.

    What it takes to make them is spent by who goes over it, an observer's thread.
    """

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    def __iter__(self) -> Iterator[ToldSpan]:
        span = self._span
        step_of: dict[str, str | int | float | bool] = {"request": span.span_id}
        for part in span.parts():
            yield ToldSpan(
                part.name,
                span.trace_id,
                part.span_id,
                part.parent_id,
                part.start_ns,
                part.end_ns,
                part.error,
                step_of,
            )
        # A host may call things what it likes, at any length; observers keep what they are told.
        facts: dict[str, str | int | float | bool] = {
            "container": span.container_id[:_MOST_ID],
            "activity": span.activity_id[:_MOST_ID],
            "message_type": span.message_type,
        }
        ids = span.trace_id, span.span_id, span.parent_id
        yield ToldSpan(span.name, *ids, span.started_ns, span.end_ns, span.error[:_MOST_ERROR], facts)
