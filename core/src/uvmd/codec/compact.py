"""JSON that we write ourselves, again and again: an encoder that is made once.

The standard library makes its C encoder anew at every call, which for the few values of a
line takes longer than the rest.
"""

from __future__ import annotations

import json.encoder
from collections.abc import Callable
from typing import Any


def encoder(
    *,
    ensure_ascii: bool = True,
    separators: tuple[str, str] = (",", ":"),
    sort_keys: bool = False,
    allow_nan: bool = True,
    default: Callable[[Any], Any] | None = None,
) -> Callable[[object], str]:
    """Return what ``json.JSONEncoder(...).encode`` is, for values that do not contain themselves."""
    plain = json.JSONEncoder(
        ensure_ascii=ensure_ascii,
        separators=separators,
        sort_keys=sort_keys,
        allow_nan=allow_nan,
        check_circular=False,
        default=default,
    )
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return plain.encode
    quote = json.encoder.encode_basestring_ascii if ensure_ascii else json.encoder.encode_basestring
    between, after_key = separators
    parts = make(None, plain.default, quote, None, after_key, between, sort_keys, False, allow_nan)
    return lambda value: "".join(parts(value, 0))
