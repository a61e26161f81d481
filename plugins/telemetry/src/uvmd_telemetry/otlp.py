"""Spans as OTLP over HTTP with JSON bodies, to a collector on the host.

https://opentelemetry.io/docs/specs/otlp/#otlphttp: POST /v1/traces. Ids are hexadecimal in
its JSON, times are strings of nanoseconds. Written here rather than by the SDK, which
would bring a second network stack into the daemon to send one kind of message.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from uvmd.api import Span

#: Spans of one request.
BATCH: Final = 512
SEND_S: Final = 5.0
_INTERNAL: Final = 1  # SPAN_KIND_INTERNAL
_SERVER: Final = 2  # SPAN_KIND_SERVER
_ERROR: Final = 2  # STATUS_CODE_ERROR


class NotTaken(Exception):
    """The collector does not want it; sending it again would not help."""


def encode(spans: Sequence[Span], version: str) -> bytes:
    """Return the body of an export request."""
    resource = {"attributes": _attributes({"service.name": "uvmd", "service.version": version})}
    scope = {"name": "uvmd", "version": version}
    told = {"resource": resource, "scopeSpans": [{"scope": scope, "spans": [_span(one) for one in spans]}]}
    return json.dumps({"resourceSpans": [told]}, separators=(",", ":")).encode()


def _span(span: Span) -> dict[str, Any]:
    told: dict[str, Any] = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": span.name,
        "kind": _INTERNAL if "request" in span.facts else _SERVER,
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": _attributes({f"uvmd.{key}": value for key, value in span.facts.items() if value != ""}),
    }
    if span.parent_id:
        told["parentSpanId"] = span.parent_id
    if span.error:
        told["status"] = {"code": _ERROR, "message": span.error}
    return told


def _attributes(facts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in facts.items()]


def _value(value: str | int | float | bool) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": value}


def send(dial: Callable[[int, float], int], port: int, body: bytes) -> None:
    """Post a body to the collector and see that it was taken.

    Raises:
        OSError: nobody answers in time, or asks to come again later.
        NotTaken: it was refused for good.
    """
    deadline = time.monotonic() + SEND_S
    head = (
        "POST /v1/traces HTTP/1.1\r\nHost: collector\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with socket.socket(fileno=dial(port, deadline)) as connection:
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        connection.sendall(head.encode() + body)
        status = _status(connection, deadline)
    if status in (429, 502, 503, 504):
        raise OSError(f"the collector asks to come later: {status}")
    if not 200 <= status < 300:
        raise NotTaken(f"the collector answered {status}")


def _status(connection: socket.socket, deadline: float) -> int:
    line = b""
    while b"\n" not in line:
        left = deadline - time.monotonic()
        if left <= 0 or len(line) > 4096:
            raise OSError("the collector does not answer")
        connection.settimeout(left)
        more = connection.recv(1024)
        if not more:
            raise OSError("the collector left without an answer")
        line += more
    words = line.split(b"\n", 1)[0].split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise NotTaken("what answers is no HTTP server")
    return int(words[1])
