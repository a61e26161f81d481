"""Redaction by name: environments, arguments and policies do not reach a log.

The style of this house forbids to log them; this is the net below. A value is known by
the key under which it stands, at any depth. The form of what was there is kept, so that a
line still shows that something was (the reference's marks, spec bridge.md 9).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MARK = "<scrubbed>"

#: Lower case, without underscores: CommandLine and command_line are the same.
SECRET = frozenset(
    {
        "annotations",
        "args",
        "argv",
        "body",
        "commandargs",
        "commandline",
        "containerconfig",
        "encodedsecuritypolicy",
        "encodeduvmhashenvelopereference",
        "encodeduvmreference",
        "env",
        "environ",
        "environment",
        "fragment",
        "input",
        "ociprocess",
        "ocispecification",
        "password",
        "policy",
        "policytext",
        "processparameters",
        "request",
        "secret",
        "settings",
        "spec",
        "stdin",
        "token",
    }
)
_MAX_DEPTH = 20
#: Asked first: to ask whether something is a Mapping takes as long as all the rest.
_PLAIN = frozenset((str, int, float, bool, type(None)))


def scrub(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``facts`` with secret values replaced; the given mapping is not changed."""
    return {key: _value(key, value, _MAX_DEPTH) for key, value in facts.items()}


def is_secret(key: str) -> bool:
    """Whether a value under ``key`` must not be shown."""
    return key.lower().replace("_", "") in SECRET


def _value(key: object, value: Any, depth: int) -> Any:
    if isinstance(key, str) and is_secret(key):
        return _mark(value)
    return _below(value, depth)


def _below(value: Any, depth: int) -> Any:
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Mapping):
        if depth == 0:
            return MARK
        return {key: _value(key, item, depth - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_below(item, depth - 1) for item in value] if depth else MARK
    return value


def _mark(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        return {MARK: MARK} if value else {}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [MARK] if value else []
    return MARK if value != "" else ""
