"""Keys match whatever their case: an object's keys in the spelling that we know.

Folding is Go's: ASCII letters, and the two other letters of Unicode whose simple folding
is an ASCII letter (the long s and the Kelvin sign).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from uvmd.errors import InvalidMessage

_BEYOND_ASCII = {0x17F: "s", 0x212A: "k"}


class Names:
    """The keys that an object may have, in their right spelling."""

    __slots__ = ("exact", "_by_fold")

    def __init__(self, names: Iterable[str]) -> None:
        self.exact = frozenset(names)
        self._by_fold = {_folded(name): name for name in self.exact}

    def spelled(self, key: str) -> str:
        """Return the known spelling of ``key``, or ``key`` itself if it is unknown."""
        return self._by_fold.get(_folded(key), key)


class KeySentTwice(Exception):
    """Strict only. ``path`` grows from the inside out while the error rises."""

    def __init__(self, name: str) -> None:
        self.path = [name]


def fold(value: dict[str, Any], names: Names, *, what: str, strict: bool = False) -> dict[str, Any]:
    """Return ``value`` with the keys that ``names`` knows in their right spelling.

    Unknown keys stay. Of keys that fold to the same name the last one read counts, a null
    does not. The value itself comes back when there is nothing to fold.

    Raises:
        InvalidMessage: strict, and two keys are the same name. In a strict VM the host,
            the policy and the guest must not read three values from one body.
    """
    try:
        return folded(value, names, strict)
    except KeySentTwice as error:
        raise InvalidMessage(f"{what}.{error.path[0]} is sent twice") from None


def folded(value: dict[str, Any], names: Names, strict: bool) -> dict[str, Any]:
    """Do the work of :func:`fold`; raises :class:`KeySentTwice` instead."""
    if value.keys() <= names.exact:
        return value
    found: dict[str, Any] = {}
    for key, item in value.items():
        name = key if key in names.exact else names.spelled(key)
        if name in found:
            if strict:
                raise KeySentTwice(name)
            if item is None:
                continue
        found[name] = item
    return found


def _folded(key: str) -> str:
    return key.lower() if key.isascii() else key.translate(_BEYOND_ASCII).lower()
