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
    objects = [one for one in candidates if isinstance(one, dict)]
    if not objects:
        return ""
    if error.startswith(_MOUNTS):
        return _mount(error.removeprefix(_MOUNTS).split(",")[0], input, objects)
    say = _SAY.get(error)
    return say(input, objects) if say is not None else ""


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
    named = [one for one in candidates if "command" in one]
    if not named:
        return ""
    best = max(named, key=lambda one: likeness(asked, one["command"]))
    said, name = command(asked, best["command"]), best.get("name")
    return f"{said} for {shown(name)}" if said and isinstance(name, str) and name else said


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


def _user(input: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]]) -> str:
    asked, umask = input.get("user"), input.get("umask")
    rules = [one["user"] for one in candidates if isinstance(one.get("user"), dict)]
    if not isinstance(asked, dict) or not rules:
        return ""
    allowed = dict.fromkeys(
        f"{_rule(one.get('user_idname'))}, umask {_bare(one.get('umask'))}" for one in rules
    )
    who = " ".join(_bare(asked.get(key)) for key in ("id", "name"))
    return f"asked {who}, umask {_bare(umask)}, the policy has {' or '.join([*allowed][:2])}"


def _bare(value: Any) -> str:
    return shown(value).strip('"')


def _rule(rule: Any) -> str:
    if not isinstance(rule, dict):
        return "none"
    return (
        "any user"
        if rule.get("strategy") == "any"
        else f"{_bare(rule.get('strategy'))} {shown(rule.get('pattern'))}"
    )


def _mount(destination: str, input: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]]) -> str:
    asked = _at(destination, input.get("mounts"))
    rule = next((found for one in candidates if (found := _at(destination, one.get("mounts")))), None)
    if asked is None:
        return ""
    if rule is None:
        return f"{shown(destination)}: the policy has no mount there"
    for key in ("type", "options", "source"):
        one, other = asked.get(key), rule.get(key)
        same = (
            isinstance(one, list)
            and isinstance(other, list)
            and sorted(map(str, one)) == sorted(map(str, other))
        )
        if one != other and not same:
            return f"{shown(destination)}: {key} is {shown(one)}, the policy has {shown(other)}"
    return ""


def _at(destination: str, mounts: Any) -> Mapping[str, Any] | None:
    listed = mounts if isinstance(mounts, list) else []
    found = (one for one in listed if isinstance(one, dict) and one.get("destination") == destination)
    return next(found, None)


_MOUNTS = "invalid mount list: "
_SAY: dict[str, Callable[[Mapping[str, Any], Sequence[Mapping[str, Any]]], str]] = {
    "invalid command": _command,
    "invalid working directory": _directory,
    "capabilities don't match": _capabilities,
    "invalid user": _user,
}
