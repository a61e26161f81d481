"""Tables of a configuration file, read key by key; what nobody asked for is a mistake."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from uvmd_policy_rego.tools.errors import PolicyToolError

T = TypeVar("T")
_KINDS = {str: "a text", bool: "true or false", int: "a number", list: "a list", dict: "a table"}


class Table:
    """One table and where it stands in the file, ``container[0].env_rule[2]`` say.

    A key may have a second spelling (TOML's and JSON's differ in the reference's tool).
    """

    def __init__(self, values: Any, where: str = "") -> None:
        self.where = where
        if not isinstance(values, dict):
            raise PolicyToolError(f"{where} is not a table")
        self._values: dict[str, Any] = values
        self._asked: list[str] = []

    def at(self, key: str) -> str:
        """Return a key's place."""
        return f"{self.where}.{key}" if self.where else key

    def fail(self, key: str, reason: str) -> NoReturn:
        """Refuse the value of a key.

        Raises:
            PolicyToolError: always.
        """
        raise PolicyToolError(f"{self.at(key)}: {reason}")

    def get(self, kind: type[T], *keys: str) -> T | None:
        """Return the value of the first of the keys that is there.

        Raises:
            PolicyToolError: it is of another kind.
        """
        self._asked += keys
        for key in keys:
            value = self._values.get(key)
            if value is None:
                continue
            # A bool is an int to Python, not to whoever wrote the file.
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                self.fail(key, f"must be {_KINDS[kind]}")
            return value
        return None

    def text(self, *keys: str) -> str | None:
        """Return a text, None if it is not there."""
        return self.get(str, *keys)

    def flag(self, *keys: str) -> bool:
        """Return a switch; off if it is not there."""
        return bool(self.get(bool, *keys))

    def texts(self, *keys: str) -> list[str] | None:
        """Return a list of texts."""
        found: list[Any] | None = self.get(list, *keys)
        if found is not None and not all(isinstance(one, str) for one in found):
            self.fail(keys[0], "must be a list of texts")
        return found

    def table(self, *keys: str) -> Table | None:
        """Return a table inside of this one."""
        found: dict[str, Any] | None = self.get(dict, *keys)
        return None if found is None else Table(found, self.at(keys[0]))

    def tables(self, *keys: str) -> list[Table]:
        """Return an array of tables."""
        found: list[Any] = self.get(list, *keys) or []
        return [Table(one, f"{self.at(keys[0])}[{number}]") for number, one in enumerate(found)]

    def one_of(self, allowed: Sequence[str], *keys: str) -> str | None:
        """Return a text that must be one of a few."""
        found = self.text(*keys)
        if found is not None and found not in allowed:
            self.fail(keys[0], f"{found!r} is none of {', '.join(allowed)}")
        return found

    def end(self, ignored: Mapping[str, str] | None = None) -> list[str]:
        """Say that all was read; return remarks on keys that are known and have no effect.

        Raises:
            PolicyToolError: there are others.
        """
        remarks = []
        for key in self._values:
            if key in self._asked:
                continue
            if ignored and key in ignored:
                remarks.append(f"{self.at(key)} {ignored[key]}")
                continue
            close = difflib.get_close_matches(key, [*self._asked, *(ignored or ())], 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise PolicyToolError(f"{self.at(key)} is not known{hint}")
        return remarks
