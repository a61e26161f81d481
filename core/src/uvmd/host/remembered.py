"""The policy's answers to a request, kept for a later daemon (``policy.gate.Memory``).

A daemon that serves the request again takes them from there: under a policy a question may be
counted (a container has been created, a device is mounted), and the second one be denied. Yes
and no more to a change that is on record stands with it there; everything else is kept beside
the request by the monitor.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from operator import is_
from typing import TYPE_CHECKING, Any, Final

from uvmd.api.policy import Decision
from uvmd.codec import compact
from uvmd.host.doing import Doing, doing

if TYPE_CHECKING:
    from uvmd.host.records import Records
    from uvmd.policy.gate import Asked

_YES: Final = Decision(True)


class Remembered:
    """``note(name, value)`` has the monitor keep a note beside the request of the calling thread."""

    def __init__(self, note: Callable[[str, bytes], None], records: Records) -> None:
        self._note = note
        self._records = records

    def recall(self, *asked: Asked) -> Sequence[Decision] | None:
        """Return the answers to the same questions for the same request, if there were some."""
        here = doing()
        if not here.again:
            return None
        name = _name(asked)
        if self._records.was_allowed(here.number, name):
            here.recalled = True
            return [_YES] * len(asked)
        text = here.notes.get(name)
        if text is None:
            return self._recall_apart(asked) if len(asked) > 1 else None
        here.recalled = True
        kept = json.loads(text)
        return [Decision(**one) for one in (kept if isinstance(kept, list) else [kept])]

    def _recall_apart(self, asked: Sequence[Asked]) -> Sequence[Decision] | None:
        """Return what an earlier release was told one by one, if it is all there."""
        found = [answer for one in asked for answer in self.recall(one) or ()]
        return found if len(found) == len(asked) else None

    def get_ready(self, *asked: Asked) -> None:
        """Do what :meth:`remember` would have to for these, while they are being asked; raises nothing."""
        here = doing()
        if here.number:
            try:
                here.named = asked, _name(asked)
            except Exception:
                here.named = None  # remember() raises it, once the answer is there

    def remember(self, *asked: Asked, decisions: Sequence[Decision]) -> None:
        """Have answers kept, before anything follows from them.

        Raises:
            Failed: they cannot be.
        """
        here = doing()
        number = here.number
        if not number:
            return
        name = _name_of(here, asked)
        # Not by the monitor where it can be helped: it would have to be woken.
        if all(decision == _YES for decision in decisions) and self._records.allow(number, name):
            return
        kept = [_fields(decision) for decision in decisions]
        # One by itself is kept as an earlier release did.
        text = json.dumps(kept if len(kept) > 1 else kept[0], default=_plain)
        self._note(name, text.encode())


def _fields(decision: Decision) -> dict[str, Any]:
    # Not asdict, which copies each variable and each capability by itself.
    return {one.name: getattr(decision, one.name) for one in dataclasses.fields(decision)}


def _name_of(here: Doing, asked: Sequence[Asked]) -> str:
    ready = here.named
    if ready is not None and len(ready[0]) == len(asked) and all(map(is_, ready[0], asked)):
        return ready[1]
    return _name(asked)


def _name(asked: Sequence[Asked]) -> str:
    from hashlib import sha256  # only a VM under a policy needs it

    texts = [_sorted(input) for _, input in asked]
    digest = sha256("\n".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
    return f"{' '.join(point for point, _ in asked)} {digest}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return sorted(value) if isinstance(value, set | frozenset) else list(value)


# By this a yes of an earlier release is found.
_sorted = compact.encoder(separators=(", ", ": "), sort_keys=True, default=_plain)
