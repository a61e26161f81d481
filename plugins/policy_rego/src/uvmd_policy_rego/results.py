"""What a rule's result says of environment, capabilities and streams (policy.md 4.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from uvmd_policy_rego.session import Refusal
from uvmd_policy_rego.values import distinct, go_type

_WITH_ENV = frozenset(("create_container", "exec_in_container", "exec_external"))
_WITH_CAPABILITIES = frozenset(("create_container", "exec_in_container"))
_WITH_STDIO = frozenset(("create_container", "exec_external"))
CAPABILITY_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")


def env_of(point: str, result: Mapping[str, Any], input: Mapping[str, Any]) -> list[str] | None:
    """Return the environment to keep, in request order; None keeps everything.

    Raises:
        Refusal: the result's list is none.
    """
    kept = result.get("env_list") if point in _WITH_ENV else None
    if kept is None:
        return None
    if not isinstance(kept, list):
        expected = "expected []interface{}"
        raise Refusal(f"policy returned incorrect type for 'env_list', {expected}, received {go_type(kept)}")
    for one in kept:
        if not isinstance(one, str):
            raise Refusal(f"members of env_list from policy must be strings, received {go_type(one)}")
    return _kept(input.get("envList"), kept)


def capabilities_of(
    point: str, result: Mapping[str, Any], input: Mapping[str, Any]
) -> dict[str, list[str]] | None:
    """Return the five sets to keep; None keeps everything.

    Raises:
        Refusal: one of them is missing or no list.
    """
    found = result.get("caps_list") if point in _WITH_CAPABILITIES else None
    if found is None:
        return None
    if not isinstance(found, dict):
        expected = "expected map[string]interface{}"
        got = go_type(found)
        raise Refusal(f"policy returned incorrect type for 'caps_list', {expected}, received {got}")
    asked = input.get("capabilities") or {}
    return {name: _kept(asked.get(name), _names(found.get(name))) for name in CAPABILITY_SETS}


def _names(names: Any) -> list[str]:
    if not isinstance(names, list):
        raise Refusal(
            "capability sets of caps_list from policy must be an array of interface{}, "
            f"received {go_type(names)}"
        )
    for one in names:
        if not isinstance(one, str):
            raise Refusal(f"members of capability sets from policy must be strings, received {go_type(one)}")
    return names


def stdio_of(point: str, result: Mapping[str, Any]) -> bool:
    """Return whether the host may have the process's streams.

    Raises:
        Refusal: it is no boolean.
    """
    if point not in _WITH_STDIO:
        return True
    stdio = result.get("allow_stdio_access")
    if not isinstance(stdio, bool):
        raise Refusal("value for 'allow_stdio_access' is not a boolean")
    return stdio


def _kept(asked: Sequence[str] | None, allowed: list[str]) -> list[str]:
    names = frozenset(allowed)
    return distinct(name for name in asked or () if name in names)
