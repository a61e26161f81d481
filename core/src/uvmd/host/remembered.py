"""The policy's answers to a request, kept beside it by the monitor (``policy.gate.Memory``).

A daemon that serves the request again takes them from there: under a policy a question may be
counted (a container has been created, a device is mounted), and the second one be denied.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from uvmd.api.policy import Decision
from uvmd.host.doing import doing


class Remembered:
    """``note(name, value)`` has the monitor keep a note beside the request of the calling thread."""

    def __init__(self, note: Callable[[str, bytes], None]) -> None:
        self._note = note

    def recall(self, point: str, input: object) -> Decision | None:
        """Return the answer to the same question for the same request, if there was one."""
        here = doing()
        if not here.again or not here.notes:
            return None
        kept = here.notes.get(_name(point, input))
        if kept is None:
            return None
        here.recalled = True
        return Decision(**json.loads(kept))

    def remember(self, point: str, input: object, decision: Decision) -> None:
        """Have an answer kept, before anything follows from it."""
        if doing().number:
            # Not asdict, which copies each variable and each capability by itself.
            kept = {one.name: getattr(decision, one.name) for one in dataclasses.fields(decision)}
            self._note(_name(point, input), json.dumps(kept, default=_plain).encode())


def _name(point: str, input: object) -> str:
    from hashlib import sha256  # only a VM under a policy needs it

    text = json.dumps(input, sort_keys=True, default=_plain)
    return f"{point} {sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return sorted(value) if isinstance(value, set | frozenset) else list(value)
