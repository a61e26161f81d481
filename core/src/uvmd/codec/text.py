"""From text to plain values and back: one JSON value, with limits on what it can cost.

The standard library's scanner does the work in C; the hooks here add what Go's decoder
does differently (spec bridge.md 3) and the limits that keep a hostile text cheap.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

from uvmd.codec.compact import encoder
from uvmd.errors import InvalidMessage

#: Levels of nesting. The scanner recurses in C; our threads have stacks of 512 KiB.
MAX_DEPTH = 200
#: Digits of an integer: 2**64 - 1 has 20.
MAX_DIGITS = 20
#: Separators and openers in one text: `[[],[],...` costs 60 bytes of memory a value.
MAX_VALUES = 1_000_000

_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class _RefusedText(Exception):
    """A limit or rule of ours that the scanner does not know; the text is the reason."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        return _last_wins(pairs)
    return found


def _last_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            if value is None:
                continue
            # It takes the place of the later one: folding has to see the order of reading.
            del found[key]
        found[key] = value
    return found


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _RefusedText("an object has a key twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS and len(digits.lstrip("-")) > MAX_DIGITS:
        raise _RefusedText(f"an integer has more than {MAX_DIGITS} digits")
    return int(digits)


def _real(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise _RefusedText("a number is too large")
    return value


def _constant(name: str) -> NoReturn:
    raise _RefusedText("NaN and Infinity are not JSON")


def _decoder(hook: Any) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=hook, parse_int=_integer, parse_float=_real, parse_constant=_constant
    )


_LENIENT = _decoder(_object)
_STRICT = _decoder(_object_without_duplicates)
_encode = encoder(ensure_ascii=False, allow_nan=False)


def parse(text: bytes | str, *, what: str, strict: bool = False) -> Any:
    """Return the one JSON value that ``text`` is.

    Invalid UTF-8 and lone surrogates become U+FFFD. Of a key that an object has twice the
    last one counts (a null does not), unless ``strict``: then it is refused.

    Raises:
        InvalidMessage: not JSON, more than one value, or past a limit. The text begins
            with ``what`` and never quotes the input.
    """
    if not isinstance(text, str):
        text = text.decode("utf-8", "replace")
    if len(text) > MAX_VALUES and text.count(",") + text.count("[") + text.count("{") > MAX_VALUES:
        raise InvalidMessage(f"{what}: more than {MAX_VALUES} values")
    try:
        value = (_STRICT if strict else _LENIENT).decode(text)
    except json.JSONDecodeError as error:
        reason = error.msg.rstrip(": ")
        raise InvalidMessage(f"{what}: not JSON: {reason} at character {error.pos}") from None
    except _RefusedText as error:
        raise InvalidMessage(f"{what}: {error}") from None
    except RecursionError:
        raise InvalidMessage(f"{what}: nested deeper than {MAX_DEPTH} levels") from None
    # Fewer openers than levels allowed: no need to look at the value again.
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deeper_than(value, MAX_DEPTH):
        raise InvalidMessage(f"{what}: nested deeper than {MAX_DEPTH} levels")
    if "\\u" in text and _SURROGATE_ESCAPE.search(text):
        try:
            value = _without_surrogates(value, _object_without_duplicates if strict else _object)
        except _RefusedText as error:
            raise InvalidMessage(f"{what}: {error}") from None
    return value


def dumps(value: Any) -> bytes:
    """Return ``value`` as compact JSON in UTF-8.

    Raises:
        ValueError, TypeError: it holds something that JSON has not (NaN, a bytes object).
    """
    # File names from the system may carry surrogate escapes; a host must still get UTF-8.
    return _encode(value).encode("utf-8", "replace")


def _is_deeper_than(value: Any, limit: int) -> bool:
    level = [value] if type(value) is dict or type(value) is list else []
    for _ in range(limit):
        below = []
        for item in level:
            for inner in item.values() if type(item) is dict else item:
                kind = type(inner)
                if kind is dict or kind is list:
                    below.append(inner)
        if not below:
            return False
        level = below
    return True


def _without_surrogates(value: Any, hook: Callable[[list[tuple[str, Any]]], dict[str, Any]]) -> Any:
    if type(value) is str:
        return _SURROGATE.sub("\ufffd", value)
    if type(value) is list:
        return [_without_surrogates(item, hook) for item in value]
    if type(value) is dict:
        # Two keys may become one: a duplicate as any other.
        return hook(
            [(_SURROGATE.sub("\ufffd", key), _without_surrogates(item, hook)) for key, item in value.items()]
        )
    return value
