"""The property ``uvmd.traces``: the requests that are kept, and with an id where the time of one went.

Steps of one request are few and small, but one id may stand for many requests, and an
answer has 64 KiB: the newest that fit are told, and how many were left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from uvmd.api import Environment, VmView
from uvmd.errors import PolicyDenied
from uvmd_telemetry.seen import HERE, Request, Seen

#: Of the list; each has some 150 bytes.
MOST_ROWS: Final = 200
#: Of an answer's JSON inside of JSON, its quotes escaped.
MOST_BYTES: Final = 48_000
MOST_CHOICES: Final = 10


class Traces:
    """See the module. Implements ``api.VmProperty``."""

    def __init__(self, env: Environment, seen: Seen = HERE) -> None:
        self._seen = seen

    def __call__(self, argument: str, view: VmView) -> dict[str, Any]:
        """Return the list, or the requests of one id (or of the beginning of one).

        Raises:
            PolicyDenied: the VM may not log, and a trace is a log.
        """
        if not view.logging_allowed():
            raise PolicyDenied("the policy allows no logging, and so no traces")
        kept = self._seen.kept()
        facts: dict[str, Any] = {
            "kept_requests": len(kept),
            "kept_spans": sum(one.spans for one in kept),
            "most_spans": self._seen.most_kept,
            "oldest_ns": kept[0].start_ns if kept else None,
        }
        if not argument:
            return {**facts, "requests": _that_fit(kept[-MOST_ROWS:], _row)}
        ids = _matching(kept, argument)
        if len(ids) > 1:
            return {**facts, "choices": ids[:MOST_CHOICES], "requests": [], "left_out": 0}
        found = [one for one in kept if ids and one.id == ids[0]]
        told = _that_fit(found, _with_steps)
        return {**facts, "choices": ids, "requests": told, "left_out": len(found) - len(told)}


def _matching(kept: list[Request], text: str) -> list[str]:
    """Return the ids that ``text`` is, or the beginning of; a trace of its own may be asked for too."""
    wanted = text.lower()
    exact = {one.id for one in kept if wanted in (one.id.lower(), one.trace_id)}
    if exact:
        return sorted(exact)
    return sorted({one.id for one in kept if one.id.lower().startswith(wanted)})


def _row(request: Request) -> dict[str, Any]:
    told = ("id", "name", "container", "start_ns", "duration_ns")
    return {**{key: getattr(request, key) for key in told}, "error": request.error[:80]}


def _that_fit(found: list[Request], tell: Callable[[Request], dict[str, Any]]) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    left = MOST_BYTES
    for one in reversed(found):
        request = tell(one)
        left -= len(json.dumps(json.dumps(request, separators=(",", ":"))))
        # One request is told in any case: its steps are limited, and so are its words.
        if left < 0 and told:
            break
        told.append(request)
    return told[::-1]


def _with_steps(request: Request) -> dict[str, Any]:
    inner = {"error": request.error, "trace_id": request.trace_id, "steps": request.steps()}
    return {**_row(request), **inner}
