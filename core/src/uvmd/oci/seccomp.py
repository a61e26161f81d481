"""The hash of a seccomp profile that policies compare (spec containers.md 7.13, policy.md 3.7)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

# (key, what to do when it is absent): in exactly the order of the reference's types.
_ALWAYS, _IF_FILLED, _IF_PRESENT = "always", "if filled", "if present"
_PROFILE: Final = (
    ("defaultAction", _ALWAYS, ""),
    ("defaultErrnoRet", _IF_PRESENT, None),
    ("architectures", _IF_FILLED, None),
    ("flags", _IF_FILLED, None),
    ("listenerPath", _IF_FILLED, None),
    ("listenerMetadata", _IF_FILLED, None),
    ("syscalls", _IF_FILLED, None),
)
_SYSCALL: Final = (
    ("names", _ALWAYS, None),
    ("action", _ALWAYS, ""),
    ("errnoRet", _IF_PRESENT, None),
    ("args", _IF_FILLED, None),
)
_ARGUMENT: Final = (
    ("index", _ALWAYS, 0),
    ("value", _ALWAYS, 0),
    ("valueTwo", _IF_FILLED, None),
    ("op", _ALWAYS, ""),
)

# What Go's encoder escapes inside strings and Python's does not.
_ESCAPES: Final = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


def seccomp_hash(profile: Mapping[str, Any] | None) -> str:
    """Return the lower-case hex SHA-256 of a profile's canonical JSON; ``""`` for no profile.

    The profile has passed :mod:`uvmd.oci.fields`, so its keys and types are right.
    """
    if profile is None:
        return ""
    import hashlib  # brings OpenSSL, which most daemons never need

    return hashlib.sha256(canonical(profile).encode()).hexdigest()


def canonical(profile: Mapping[str, Any]) -> str:
    """Return the profile as the reference's encoder would write it."""
    ordered = _ordered(profile, _PROFILE, syscalls=_syscall)
    text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False)
    # These characters cannot stand outside a string of a profile, so a plain replacement does.
    return text.translate(_ESCAPES)


def _ordered(
    source: Mapping[str, Any],
    fields: tuple[tuple[str, str, Any], ...],
    **items: Callable[[Mapping[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, rule, default in fields:
        value = source.get(key, default)
        if rule == _ALWAYS or (rule == _IF_PRESENT and value is not None) or (rule == _IF_FILLED and value):
            result[key] = [items[key](item) for item in value] if key in items else value
    return result


def _syscall(source: Mapping[str, Any]) -> dict[str, Any]:
    return _ordered(source, _SYSCALL, args=lambda argument: _ordered(argument, _ARGUMENT))
