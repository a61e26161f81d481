"""Literal values in a policy's text, with the place of every part.

JSON, and what Rego adds and tools have written: texts in backquotes, a comma after the last
element, comments. A fragment's ``parameter("name")`` counts as a literal too: it stands
for what the importing policy will say.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, Final

_SKIP: Final = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORD: Final = re.compile(r"(?:true|false|null)\b")
_PARAMETER: Final = re.compile(r'parameter\([ \t]*("(?:[^"\\\n]|\\.)*")[ \t]*\)((?:\.[A-Za-z_]\w*)*)')
_WORDS: Final = {"true": True, "false": False, "null": None}
_DEEPEST: Final = 40


class NotLiteral(Exception):
    """What stands there is something else, or is damaged."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A value and where it begins in the text; a list or object holds placed values."""

    at: int
    value: Any
    #: Keys that an object has more than once, with different values the policy is in error.
    twice: tuple[str, ...] = ()

    def plain(self) -> Any:
        """Return the value without places."""
        if isinstance(self.value, list):
            return [one.plain() for one in self.value]
        if isinstance(self.value, dict):
            return {key: one.plain() for key, one in self.value.items()}
        return self.value

    def find(self, *path: str | int) -> Placed | None:
        """Return the part at a path, None if there is none."""
        here = self
        for step in path:
            held = here.value
            keys = held if isinstance(held, dict) else range(len(held) if isinstance(held, list) else 0)
            if step not in keys:
                return None
            here = held[step]
        return here


class Parameter(str):
    """Stands for a fragment's parameter; reads as its name in angle quotes."""

    __slots__ = ()


class Lines:
    """Which line an offset is in."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(found.end() for found in re.finditer("\n", text))]

    def line(self, at: int) -> int:
        """Return the number of the line, from 1."""
        return bisect_right(self._starts, at)

    def start(self, line: int) -> int:
        """Return the offset at which a line begins."""
        return self._starts[line - 1]


def parse_literal(text: str, at: int) -> tuple[Placed, int]:
    """Return the literal that begins at an offset, and the offset behind it.

    Raises:
        NotLiteral: there is none.
    """
    return _value(text, at, 0)


def _value(text: str, at: int, depth: int) -> tuple[Placed, int]:
    first = text[at : at + 1]
    if depth > _DEEPEST:
        raise NotLiteral
    try:
        if first == '"':
            value, end = scanstring(text, at + 1, True)
            return Placed(at, value), end
        if first == "[":
            return _list(text, at, depth)
        if first == "{":
            return _object(text, at, depth)
        return _scalar(text, at, first)
    except (ValueError, IndexError):
        raise NotLiteral from None


def _scalar(text: str, at: int, first: str) -> tuple[Placed, int]:
    if first == "`":
        end = text.index("`", at + 1)
        return Placed(at, text[at + 1 : end]), end + 1
    for form in (_WORD, _NUMBER, _PARAMETER):
        found = form.match(text, at)
        if found is None:
            continue
        word = found.group()
        if form is _PARAMETER:
            name = json.loads(found.group(1)) + found.group(2)
            return Placed(at, Parameter(f"‹parameter {name}›")), found.end()
        value = _WORDS[word] if form is _WORD else json.loads(word)
        return Placed(at, value), found.end()
    raise NotLiteral


def _after(text: str, at: int) -> int:
    found = _SKIP.match(text, at)
    return found.end() if found else at


def _list(text: str, at: int, depth: int) -> tuple[Placed, int]:
    items: list[Placed] = []
    here = _after(text, at + 1)
    while text[here] != "]":
        item, here = _value(text, here, depth + 1)
        items.append(item)
        here = _separated(text, _after(text, here), "]")
    return Placed(at, items), here + 1


def _object(text: str, at: int, depth: int) -> tuple[Placed, int]:
    fields: dict[str, Placed] = {}
    twice: list[str] = []
    here = _after(text, at + 1)
    while text[here] != "}":
        key, here = _value(text, here, depth + 1)
        here = _after(text, here)
        if not isinstance(key.value, str) or text[here] != ":":
            raise NotLiteral
        value, here = _value(text, _after(text, here + 1), depth + 1)
        if key.value in fields:
            twice.append(key.value)
        fields[key.value] = value
        here = _separated(text, _after(text, here), "}")
    return Placed(at, fields, tuple(twice)), here + 1


def _separated(text: str, at: int, close: str) -> int:
    if text[at] == ",":
        return _after(text, at + 1)
    if text[at] != close:
        raise NotLiteral
    return at
