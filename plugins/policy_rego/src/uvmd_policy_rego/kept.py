"""A policy's metadata as texts: what crosses from policyd to the daemon and outlives both.

policyd has the values and says after each change which entries are what text from now on;
the daemon keeps the texts, without looking into them, for the day when policyd must be
made anew. Both reckon the same digest from their side. It finds what went wrong, not who
lies: it is a sum over the entries, so that a change costs no more than itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

try:
    # hashlib brings OpenSSL and 4 MiB with it; this is what it falls back to.
    from _sha256 import sha256 as sha256  # type: ignore[import-not-found]
except ImportError:
    from _sha2 import sha256 as sha256  # type: ignore[import-not-found]

#: An entry and its text, None if it is gone; without a key: the name itself, gone if it has no kind.
Change = tuple[str, str | None, str | None, str | None]
_MODULUS = 1 << 256


class Kept:
    """Names of metadata, each a map or a set of entries in their order."""

    def __init__(self) -> None:
        self._names: dict[str, tuple[str, dict[str, str]]] = {}
        self._sum = 0

    def digest(self) -> str:
        """Return what is equal where everything is."""
        return f"{self._sum:064x}"

    def names(self) -> Mapping[str, tuple[str, dict[str, str]]]:
        """Return kind and entries of each name."""
        return self._names

    def text(self, name: str, key: str) -> str | None:
        """Return the text of an entry, if it is there."""
        held = self._names.get(name)
        return None if held is None else held[1].get(key)

    def apply(self, changes: Iterable[Change]) -> None:
        """Take over changes, in order.

        Raises:
            ValueError, TypeError, KeyError: they are none.
        """
        for name, kind, key, text in changes:
            if key is None:
                self._name(name, kind)
            else:
                self._entry(name, key, text)

    def _name(self, name: str, kind: str | None) -> None:
        held = self._names.get(name)
        if kind is None:
            if held is not None:
                for key in [*held[1]]:
                    self._entry(name, key, None)
                del self._names[name]
                self._sum = (self._sum - _number(name, held[0], "", "")) % _MODULUS
        elif held is None:
            self._names[name] = (kind, {})
            self._sum = (self._sum + _number(name, kind, "", "")) % _MODULUS
        elif held[0] != kind:
            raise ValueError(f"metadata {name} is a {held[0]}")

    def _entry(self, name: str, key: str, text: str | None) -> None:
        kind, entries = self._names[name]
        old = entries.get(key)
        if old is not None:
            self._sum -= _number(name, kind, key, old)
        if text is not None:
            entries[key] = text
            self._sum += _number(name, kind, key, text)
        elif old is not None:
            del entries[key]
        self._sum %= _MODULUS

    def snapshot(self) -> Kept:
        """Return a copy that stays as it is."""
        copy = Kept()
        copy._names = {name: (kind, dict(entries)) for name, (kind, entries) in self._names.items()}
        copy._sum = self._sum
        return copy

    def changes_to(self, other: Kept) -> list[Change]:
        """Return the changes that make this what ``other`` is."""
        found: list[Change] = []
        for name, (kind, entries) in self._names.items():
            target = other._names.get(name)
            # A set has an order that a policy can see, so it is put back as a whole.
            if target is None or target[0] != kind or (kind == "set" and target[1] != entries):
                found.append((name, None, None, None))
            elif target[1] != entries:
                found += [(name, kind, key, None) for key in entries if key not in target[1]]
        gone = {name for name, kind, _, _ in found if kind is None}
        for name, (kind, entries) in other._names.items():
            mine = self._names.get(name)
            known = {} if mine is None or name in gone else mine[1]
            if mine is None or name in gone:
                found.append((name, kind, None, None))
            if known is not entries and known != entries:
                found += [(name, kind, key, text) for key, text in entries.items() if known.get(key) != text]
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Kept) and self._names == other._names

    __hash__ = None  # type: ignore[assignment]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON has it."""
        return {name: [kind, entries] for name, (kind, entries) in self._names.items()}


def from_json(kept: Mapping[str, Any]) -> Kept:
    """Return what :meth:`Kept.to_json` had said.

    Raises:
        ValueError, TypeError, KeyError: it is something else.
    """
    made = Kept()
    for name, (kind, entries) in kept.items():
        if not isinstance(kind, str) or not isinstance(entries, dict):
            raise TypeError("not what was kept")
        made.apply([(name, kind, None, None)])
        made.apply((name, kind, key, text) for key, text in entries.items())
    return made


def _number(name: str, kind: str, key: str, text: str) -> int:
    # The lengths: no two entries may look alike.
    whole = f"{len(name)} {len(key)} {kind} {name}{key}{text}"
    return int.from_bytes(sha256(whole.encode("utf-8", "surrogatepass")).digest(), "big")
