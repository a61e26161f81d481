"""Questions that were asked before, of a policy that remembers the very same: probes run in a container.

A policy whose text speaks of nothing but itself and its input answers a question by what it
remembers alone. So where neither has changed since, the answer has not either, and only what
it wants remembered is carried out again. The smallest change forgets all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from uvmd_policy_rego.store import Operation

MOST = 64
MAX_BYTES = 1 << 16


class Repeated(NamedTuple):
    """What a rule said, and what it wanted remembered."""

    result: Mapping[str, Any]
    operations: Sequence[Operation]


class Repeats:
    """The questions that were answered with yes in one state of a policy."""

    def __init__(self) -> None:
        self._state: object = None
        self._known: dict[tuple[str, str], Repeated] = {}

    def find(self, state: object, point: str, text: str | None) -> Repeated | None:
        """Return what was kept of this question in this state; None is neither."""
        if state is None or text is None or state != self._state:
            return None
        return self._known.get((point, text))

    def keep(self, state: object, point: str, text: str | None, repeated: Repeated) -> None:
        """Keep a yes that was given in this state."""
        if state is None or text is None or repeated.result.get("allowed") is not True:
            return
        if state != self._state or len(self._known) >= MOST:
            self._known.clear()
            self._state = state
        if len(text) <= MAX_BYTES:
            self._known[point, text] = repeated
