"""What ``predicates.rego`` leaves to Python: comparing lists with lists, which the engine does slowly.

Each is the one place for its question; Rego asks it both to decide and to give reasons.
Patterns are the engine's, but for those that are a text and anything behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from uvmd_policy_rego.patterns import matches_simply

_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")

_TEXT = {str}


def same(one: Any, other: Any) -> bool:
    """Compare as Rego does: by value, and true is not 1."""
    if type(one) is type(other) and isinstance(one, str | bool | int | float):
        return bool(one == other)
    if isinstance(one, bool) or isinstance(other, bool):
        return False
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, set) and isinstance(other, set):
        return len(one) == len(other) and all(any(same(a, b) for b in other) for a in one)
    return one is None and other is None


def same_names(allowed: Any, asked: Any) -> bool:
    """Say whether two lists hold the same, in whatever order."""
    if not isinstance(allowed, list | set) or not isinstance(asked, list | set):
        return False
    if len(allowed) != len(asked):
        return False
    if {*map(type, allowed), *map(type, asked)} <= _TEXT:
        return set(allowed) == set(asked)
    return _each_in(allowed, asked) and _each_in(asked, allowed)


def _each_in(ones: Any, others: Any) -> bool:
    return all(any(same(one, other) for other in others) for one in ones)


def same_capabilities(allowed: Any, asked: Any) -> bool:
    """Say whether all five sets hold the same."""
    if not isinstance(allowed, dict) or not isinstance(asked, dict):
        return False
    return all(same_names(allowed.get(name), asked.get(name)) for name in _SETS)


class Pattern(NamedTuple):
    """A pattern of a policy, anchored: as it was written, and as the engine knows it."""

    anchored: str
    translated: str


#: What a pattern is: one, or none where it does not compile.
Anchored = Callable[[Any], Sequence[Pattern]]


def _tried(patterns: Iterable[Pattern], value: Any) -> tuple[bool, list[str]]:
    """Return whether one of the patterns matches that are told without the engine, and the others."""
    others = []
    for pattern in patterns:
        matches = matches_simply(pattern.anchored, value)
        if matches:
            return True, []
        if matches is None:
            others.append(pattern.translated)
    return False, others


def env_rules(rules: Any, envs: Any, anchored: Anchored) -> dict[str, Any]:
    """Sort out rules and variables by what remains to be matched.

    ``exact`` are the variables that a rule names as they are, ``left`` the others;
    ``patterns`` and ``split`` are what those may still match, ``required`` the rules
    that must be satisfied and are not yet.
    """
    asked = envs if isinstance(envs, list | set) else ()
    texts = {env for env in asked if isinstance(env, str)}
    exact: set[str] = set()
    patterns: list[Pattern] = []
    split: list[Any] = []
    required: list[Any] = []
    for rule in rules if isinstance(rules, list | set) else ():
        if not isinstance(rule, dict):
            continue
        found = _texts_of(rule) & texts
        exact |= found
        if rule.get("strategy") == "re2":
            patterns += anchored(rule.get("pattern"))
        if "re2" in (rule.get("name_strategy"), rule.get("value_strategy")):
            split.append(rule)
        if not found and rule.get("required", False) is not False:
            required.append(rule)
    exact |= {env for env in texts - exact if _tried(patterns, env)[0]}
    left = [env for env in asked if not isinstance(env, str) or env not in exact]
    others = [one.translated for one in patterns if matches_simply(one.anchored, "") is None]
    return {"exact": exact, "left": left, "patterns": others, "split": split, "required": required}


def _texts_of(rule: dict[str, Any]) -> set[str]:
    """Return the variables that a rule names as they are."""
    found = set()
    if rule.get("strategy") == "string" and isinstance(rule.get("pattern"), str):
        found.add(rule["pattern"])
    if rule.get("name_strategy") == "string" and rule.get("value_strategy") == "string":
        name, value = rule.get("name"), rule.get("value")
        # A name ends at the first equals sign, so one that holds a sign is nobody's.
        if isinstance(name, str) and isinstance(value, str) and "=" not in name:
            found.add(f"{name}={value}")
    return found


class Mounts:
    """Constraints on mounts, found by destination: nearly all have one of their own."""

    def __init__(self, constraints: Iterable[Any]) -> None:
        self._by_destination: dict[str, list[dict[str, Any]]] = {}
        for one in constraints:
            if not isinstance(one, dict) or not isinstance(one.get("source"), str) or "type" not in one:
                continue
            destination = one.get("destination")
            # A mount's destination is a text; nothing else is equal to one.
            if isinstance(destination, str) and destination:
                self._by_destination.setdefault(destination, []).append(one)

    def sources(self, mount: dict[str, Any]) -> list[str]:
        """Return what a mount's source may be, by the constraints that it is otherwise as."""
        return [
            one["source"]
            for one in self._by_destination.get(mount["destination"], ())
            if same(one["type"], mount.get("type")) and same_names(one.get("options"), mount.get("options"))
        ]


class Places(NamedTuple):
    """What stands for the prefixes of a constraint's source: prefix and directory; and plan9's."""

    patterns: Sequence[tuple[str, Any]]
    plan9: str


def mounts_left(
    constraints: Sequence[Mounts], mounts: Any, places: Places, anchored: Anchored
) -> list[dict[str, Any]]:
    """Return the mounts whose source is not plainly allowed, and by what it still may be.

    ``patterns`` are to be tried on it; ``plan9`` says that a share mounted there would do.
    """
    left = []
    for at, mount in enumerate(mounts if isinstance(mounts, list) else ()):
        known = isinstance(mount, dict) and isinstance(mount.get("destination"), str)
        allowed = [one for some in constraints for one in some.sources(mount)] if known else []
        source = mount.get("source") if known else None
        if source in allowed:
            continue
        patterns = _placed(allowed, places, anchored) if isinstance(source, str) else ()
        matches, others = _tried(patterns, source)
        if not matches:
            plan9 = any(one.startswith(places.plan9) for one in allowed)
            left.append({"at": at, "source": source, "patterns": others, "plan9": plan9})
    return left


def _placed(allowed: Sequence[str], places: Places, anchored: Anchored) -> Iterator[Pattern]:
    """Return the patterns that sources stand for in this request."""
    for prefix, directory in places.patterns:
        if isinstance(directory, str):
            for one in allowed:
                if one.startswith(prefix):
                    yield from anchored(one.replace(prefix, directory))
