"""One log record as one line: a JSON object, or text for people.

A host reads the daemon's standard error and takes the first line that is no JSON for the
daemon's death cry (spec bridge.md 1.5), so whatever happens a line is one JSON object.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from typing import Any

from uvmd.errors import UvmdError
from uvmd.observe.scrub import scrub
from uvmd.observe.stacks import stack_of

#: A pipe takes this much in one piece; a longer line could be torn by the monitor's.
MAX_LINE_BYTES = 4096
#: Under this key in ``extra`` a mapping is laid flat; logging reserves names such as "name".
FLAT = "facts"

_CUT = " [cut]"
_MAX_CUTS = 16
_UNCUT = ("time", "level")
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str)
# A host parses levels by logrus' names and knows no "critical".
_LEVELS = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "error"}

_second = (-1, "")


def time_text(seconds: float) -> str:
    """Return a Unix time as RFC 3339 with nanoseconds, in UTC."""
    global _second
    whole, second = int(seconds), _second
    if second[0] != whole:
        _second = second = (whole, time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(whole)))
    return f"{second[1]}{int((seconds - whole) * 1e9):09d}Z"


def facts_of(record: logging.LogRecord, *, scrubbed: bool) -> dict[str, Any]:
    """Return what was given as ``extra``, and of an exception what may be shown."""
    facts = {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
    if FLAT in facts:
        facts |= facts.pop(FLAT)
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        facts["error"] = _text_of(error, scrubbed=scrubbed)
        facts["stack"] = stack_of(error)
    return scrub(facts) if scrubbed else facts


def json_line(record: logging.LogRecord, *, scrubbed: bool, lost: int = 0) -> bytes:
    """Return ``record`` as a JSON object and a newline."""
    line = {
        "time": time_text(record.created),
        "level": _LEVELS.get(record.levelno, "info"),
        "msg": record.getMessage(),
        "room": record.name,
    }
    facts = facts_of(record, scrubbed=scrubbed)
    if facts.keys() & line.keys():
        facts = {f"{key}_" if key in line else key: value for key, value in facts.items()}
    line |= facts
    if lost:
        line["lost_lines"] = str(lost)
    return _fitted(line, _encoded)


def text_line(record: logging.LogRecord, *, scrubbed: bool, lost: int = 0) -> bytes:
    """Return ``record`` as a line for people; facts follow as key=value."""
    line: dict[str, Any] = {"": record.getMessage()} | facts_of(record, scrubbed=scrubbed)
    if lost:
        line["lost_lines"] = lost
    start = f"{time_text(record.created)} {_LEVELS.get(record.levelno, 'info').upper():7} "

    def written(line: dict[str, Any]) -> bytes:
        facts = [str(line[""]), *(f"{key}={_plain(value)}" for key, value in line.items() if key)]
        return (start + " ".join(facts)).encode("utf-8", "replace").replace(b"\n", b"\\n") + b"\n"

    return _fitted(line, written)


def _encoded(line: dict[str, Any]) -> bytes:
    try:
        return _ENCODER.encode(line).encode("utf-8", "replace") + b"\n"
    except (TypeError, ValueError, RecursionError):
        # A key that is no string, or a loop: better the message alone than no line.
        return _ENCODER.encode({key: str(line[key]) for key in ("time", "level", "msg")}).encode() + b"\n"


def _fitted(line: dict[str, Any], write: Callable[[dict[str, Any]], bytes]) -> bytes:
    """Cut the longest texts in ``line`` until it fits into one write; else leave the message alone."""
    written = write(line)
    for _ in range(_MAX_CUTS):
        if len(written) <= MAX_LINE_BYTES:
            return written
        key = max((key for key in line if key not in _UNCUT), key=lambda key: len(_plain(line[key])))
        text = _plain(line[key])
        line[key] = text[: min(len(text) // 2, MAX_LINE_BYTES // 2)] + _CUT
        written = write(line)
    if len(written) <= MAX_LINE_BYTES:
        return written
    short: dict[str, Any] = {key: line[key] for key in ("time", "level", "msg", "") if key in line}
    message = "" if "" in line else "msg"
    # One character can become six: "\\u0000".
    short[message] = _plain(short[message])[: MAX_LINE_BYTES // 8] + _CUT
    return write(short)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


def _text_of(error: BaseException, *, scrubbed: bool) -> str:
    if not scrubbed or isinstance(error, UvmdError):
        return f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{type(error).__name__}: {os.strerror(error.errno)} (errno {error.errno})"
    return type(error).__name__
