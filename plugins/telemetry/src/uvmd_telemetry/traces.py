"""The property ``uvmd.traces``: the requests that are kept, and with an id where the time of one went.

Steps of one request are few and small, but one id may stand for many requests, and an
answer has 64 KiB: the newest that fit are told, and how many were left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from uvmd.api import Environment, VmView
from uvmd.errors import PolicyDenied
from uvmd_telemetry.seen import HERE, Request, Seen

if TYPE_CHECKING:
    from uvmd.api import Span

#: Of the list; each has some 150 bytes.
MOST_ROWS: Final = 200
#: Of an answer's JSON inside of JSON, its quotes escaped.
MOST_BYTES: Final = 48_000
MOST_CHOICES: Final = 10
_NOBODYS: Final = ("", "00000000-0000-0000-0000-000000000000")


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
            "kept_spans": sum(1 + len(one.steps) for one in kept),
            "most_spans": self._seen.most_kept,
            "oldest_ns": kept[0].span.start_ns if kept else None,
        }
        if not argument:
            return {**facts, "requests": _that_fit(kept[-MOST_ROWS:], lambda one: _row(one.span))}
        ids = _matching(kept, argument)
        if len(ids) > 1:
            return {**facts, "choices": ids[:MOST_CHOICES], "requests": [], "left_out": 0}
        found = [one for one in kept if ids and id_of(one.span) == ids[0]]
        told = _that_fit(found, _with_steps)
        return {**facts, "choices": ids, "requests": told, "left_out": len(found) - len(told)}


def id_of(span: Span) -> str:
    """Return what a request is asked for by: its activity, or, since few hosts give one, its trace."""
    activity = str(span.facts.get("activity", ""))
    return span.trace_id if activity in _NOBODYS else activity


def _matching(kept: list[Request], text: str) -> list[str]:
    """Return the ids that ``text`` is, or the beginning of; a trace of its own may be asked for too."""
    wanted = text.lower()
    exact = {id_of(one.span) for one in kept if wanted in (id_of(one.span).lower(), one.span.trace_id)}
    if exact:
        return sorted(exact)
    return sorted({found for one in kept if (found := id_of(one.span)).lower().startswith(wanted)})


def _row(span: Span) -> dict[str, Any]:
    return {
        "id": id_of(span),
        "name": span.name,
        "container": span.facts.get("container", ""),
        "start_ns": span.start_ns,
        "duration_ns": span.end_ns - span.start_ns,
        "error": span.error[:80],
    }


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
    span = request.span
    depths = {span.span_id: -1}
    steps = []
    for one in request.steps:
        depth = depths[one.span_id] = depths.get(one.parent_id, -1) + 1
        steps.append([one.name, depth, one.start_ns - span.start_ns, one.end_ns - one.start_ns, one.error])
    return {**_row(span), "error": span.error, "trace_id": span.trace_id, "steps": steps}
