"""What a denied request came closest to, in few words: for the sentence before a denial's document.

Only said, never decided by: the reasons are the rules' own. What is compared here is what
the rules were asked with and what they held it against, both of which the document shows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_SHOWN = 80


def details(error: str, input: Mapping[str, Any], candidates: Sequence[Any]) -> str:
    """Return what differs from the closest candidate as far as this reason goes; often nothing."""
    say = _SAY.get(error)
    objects = [one for one in candidates if isinstance(one, dict)]
    return say(input, objects) if say is not None and objects else ""


def command(asked: Any, allowed: Any) -> str:
    """Say where two commands part."""
    if not isinstance(asked, list) or not isinstance(allowed, list):
        return f"asked {shown(asked)}, the policy has {shown(allowed)}"
    for number, (one, other) in enumerate(zip(asked, allowed, strict=False)):
        if one != other:
            return f"argument {number} is {shown(one)}, the policy has {shown(other)}"
    if asked == allowed:
        return ""  # it is something else that this candidate is not
    if len(asked) > len(allowed):
        return f"asked with {shown(asked[len(allowed) :])} more at its end"
    return f"asked without {shown(allowed[len(asked) :])} at its end"


def likeness(asked: Any, allowed: Any) -> float:
    """Tell how much two commands have in common: whole arguments, then how the next one begins."""
    if not isinstance(asked, list) or not isinstance(allowed, list):
        return 0.0
    same = sum(one == other for one, other in zip(asked, allowed, strict=False))
    first = next(((one, other) for one, other in zip(asked, allowed, strict=False) if one != other), ("", ""))
    letters = _prefix(str(first[0]), str(first[1])) / (1 + max(len(str(part)) for part in first))
    return float(same + letters - abs(len(asked) - len(allowed)) / 4)


def _prefix(one: str, other: str) -> int:
    return next(
        (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def shown(value: Any, limit: int = _SHOWN) -> str:
    """Quote a value on one line, without the middle of a long one."""
    text = json.dumps(value)
    return text if len(text) <= limit else f"{text[: limit // 2]}...{text[-limit // 2 + 3 :]}"


def _command(input: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]]) -> str:
    asked = input.get("argList")
    commands = [one["command"] for one in candidates if "command" in one]
    if not commands:
        return ""
    return command(asked, max(commands, key=lambda one: likeness(asked, one)))


def _directory(input: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]]) -> str:
    allowed = dict.fromkeys(shown(one["working_dir"]) for one in candidates if "working_dir" in one)
    return (
        f"asked {shown(input.get('workingDir'))}, the policy has {' or '.join([*allowed][:3])}"
        if allowed
        else ""
    )


def _capabilities(input: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]]) -> str:
    asked, found = input.get("capabilities"), []
    listed = [one["capabilities"] for one in candidates if isinstance(one.get("capabilities"), dict)]
    if not isinstance(asked, dict) or not listed:
        return ""
    for name, names in asked.items():
        allowed = listed[0].get(name)
        if isinstance(names, list) and isinstance(allowed, list) and set(names) != set(allowed):
            more, fewer = sorted(set(names) - set(allowed)), sorted(set(allowed) - set(names))
            parts = [f"too many {shown(more)}"] * bool(more) + [f"missing {shown(fewer)}"] * bool(fewer)
            found.append(f"{name}: {', '.join(parts)}")
    return "; ".join(found[:2])


_SAY: dict[str, Callable[[Mapping[str, Any], Sequence[Mapping[str, Any]]], str]] = {
    "invalid command": _command,
    "invalid working directory": _directory,
    "capabilities don't match": _capabilities,
}
