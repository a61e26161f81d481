"""Values as policies and hosts mean them: versions, numbers in texts, JSON as Go writes it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

_IDENTIFIER = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_VERSION = re.compile(rf"v?([0-9]+)\.([0-9]+)\.([0-9]+)(?:-({_IDENTIFIER}))?(?:\+{_IDENTIFIER})?")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INT64 = 1 << 63

Version = tuple[int, int, int, tuple[tuple[int, int, str], ...] | None]


def parse_version(text: object) -> Version | None:
    """Return what a semantic version is ordered by, None if it is none (policy.md 1)."""
    if not isinstance(text, str) or len(text) > 512:
        return None
    found = _VERSION.fullmatch(text)
    if found is None:
        return None
    major, minor, patch = (int(part) for part in found.group(1, 2, 3))
    if max(major, minor, patch) >= _INT64:
        return None
    pre = found.group(4)
    if pre is None:
        return major, minor, patch, None
    # Numbers sort before words and by value.
    parts = tuple((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in pre.split("."))
    return major, minor, patch, parts


def compare_versions(a: object, b: object) -> int | None:
    """Return -1, 0 or 1 by semver 2.0; None unless both are versions."""
    one, other = parse_version(a), parse_version(b)
    if one is None or other is None:
        return None
    if one[:3] != other[:3]:
        return -1 if one[:3] < other[:3] else 1
    if one[3] == other[3]:
        return 0
    # A release is after its prereleases.
    if one[3] is None:
        return 1
    if other[3] is None:
        return -1
    return -1 if one[3] < other[3] else 1


def to_number(value: object) -> int | float | None:
    """Return the number that a value stands for, None if it stands for none (policy.md 1)."""
    if value is None:
        return 0
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str) or len(value) > 512 or not _NUMBER.fullmatch(value):
        return None
    digits = value.lstrip("+-")
    if digits.isdecimal():
        return int(value)
    number = float(value)
    return None if number in (float("inf"), float("-inf")) else number


def canonical(value: Any) -> str:
    """Return the JSON text by which values are the same or not."""
    return _CANONICAL(value)


# Made once: json.dumps makes an encoder a call.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def go_json(value: Any) -> str:
    """Encode as Go's encoding/json does: sorted keys, no spaces, HTML characters escaped.

    Raises:
        ValueError, TypeError: it is no JSON value.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character, escape in _ESCAPES:
        if character in text:
            text = text.replace(character, escape)
    return text


_ESCAPES = (
    ("<", "\\u003c"),
    (">", "\\u003e"),
    ("&", "\\u0026"),
    ("\u2028", "\\u2028"),
    ("\u2029", "\\u2029"),
)


def go_type(value: object) -> str:
    """Return the name by which the reference's messages call the type of a JSON value."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "json.Number"
    if isinstance(value, str):
        return "string"
    return "map[string]interface {}" if isinstance(value, dict) else "[]interface {}"


def distinct(names: Iterable[str]) -> list[str]:
    """Return the names in their order, each once."""
    return list(dict.fromkeys(names))
