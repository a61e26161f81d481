"""One change from an old policy to a new one, and lists compared as sets of objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from uvmd_policy_rego.values import canonical


@dataclass(frozen=True, slots=True)
class Change:
    """``more`` is allowed now, or ``less``; ``other``: asked for differently, neither more nor less."""

    allows: str
    where: str
    text: str

    def as_json(self) -> dict[str, str]:
        """Return it for ``--json``."""
        return {"allows": self.allows, "where": self.where, "text": self.text}


def only_in(one: Sequence[Any], other: Sequence[Any]) -> Iterator[Any]:
    """Yield the values of *one* that *other* does not hold, each once."""
    held = {canonical(value) for value in other}
    for value in one:
        text = canonical(value)
        if text not in held:
            held.add(text)
            yield value


def as_list(value: Any) -> list[Any]:
    """Return a list, the empty one for anything else."""
    return value if isinstance(value, list) else []
