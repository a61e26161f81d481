"""Which candidate came closest to a denied request: asked of the rules themselves.

Each candidate is put alone into a policy, and the framework is asked why not: the one with
the fewest reasons came closest. Values of environment variables are not in a denial, so
they take no part in this.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from uvmd_policy_rego import defaults
from uvmd_policy_rego.engine import EngineError
from uvmd_policy_rego.legacy import FRAMEWORK_POINTS
from uvmd_policy_rego.nearest import likeness
from uvmd_policy_rego.session import Session
from uvmd_policy_rego.store import Operation

_ANY = {"pattern": "", "strategy": "any"}
_ANYBODY = {"user_idname": _ANY, "group_idnames": [_ANY]}
#: A policy may list a thousand; those with the likest commands are asked.
MOST_JUDGED = 20
_NETWORK_FILES = frozenset(("/etc/hostname", "/etc/hosts", "/etc/resolv.conf"))
_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")
#: Placeholders of a denial, and what they stand for (policy.md 13.3).
CAPABILITIES: Mapping[str, Mapping[str, Sequence[str]]] = {
    "[privileged]": {
        **dict.fromkeys(_SETS[:4], defaults.PRIVILEGED_CAPABILITIES),
        "ambient": [],
    },
    "[unprivileged]": {
        **dict.fromkeys(("bounding", "effective", "permitted"), defaults.UNPRIVILEGED_CAPABILITIES),
        **dict.fromkeys(("inheritable", "ambient"), ()),
    },
}


class Judged(NamedTuple):
    """A candidate and why the request is not it, the environment left aside."""

    number: int
    candidate: Mapping[str, Any]
    errors: tuple[str, ...]


def judge(
    point: str,
    input: Mapping[str, Any],
    candidates: Sequence[Any],
    said: Sequence[str],
    *,
    users_known: bool = True,
) -> list[Judged]:
    """Return the candidates of a container, the closest first; ``said`` is why all of them were not it.

    Without ``users_known`` the names of users and groups are not, and whoever asks is fine.
    """
    anybody = {} if users_known else {"user": {**_ANYBODY, "umask": input.get("umask")}}
    asked = {**_known(input), "envList": [], "rule": point}
    found = [(number, one) for number, one in enumerate(candidates) if isinstance(one, dict)]
    found.sort(key=lambda one: -_likeness(point, input, one[1]))
    judged = [
        Judged(number, one, _errors(point, asked, {**_known(one), **anybody}, said))
        for number, one in found[:MOST_JUDGED]
    ]
    return sorted(judged, key=lambda one: len(one.errors))  # stable: the likest command first


def listed_in(value: Any) -> list[Any]:
    """Return a list, or an empty one: a denial comes from far away."""
    return value if isinstance(value, list) else []


def objects_in(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list."""
    return [one for one in listed_in(value) if isinstance(one, dict)]


def _likeness(point: str, input: Mapping[str, Any], candidate: Mapping[str, Any]) -> float:
    asked = input.get("argList")
    if point == "create_container":
        return likeness(asked, candidate.get("command"))
    processes = [one for one in objects_in(candidate.get("exec_processes"))]
    return max((likeness(asked, one.get("command")) for one in processes), default=0.0)


def _known(value: Mapping[str, Any]) -> dict[str, Any]:
    """Put capabilities in place of their placeholder."""
    shown = value.get("capabilities")
    if isinstance(shown, str) and shown in CAPABILITIES:
        full = {name: list(names) for name, names in CAPABILITIES[shown].items()}
        return {**value, "capabilities": full}
    return dict(value)


def _errors(
    point: str, asked: Mapping[str, Any], candidate: Mapping[str, Any], said: Sequence[str]
) -> tuple[str, ...]:
    alone = {**candidate, "env_rules": []}
    # Where nothing was wrong with them, more of them than the policy has were dropped.
    drops = "capabilities don't match" not in said
    try:
        session = Session(_policy(alone, drops), [*defaults.DEFAULT_MOUNTS, *_of_the_pod(asked, said)])
    except EngineError:
        return ("what is shown of it cannot be read",)
    try:
        session.documents.store.apply(_remembered(point, asked, alone))
        answer = session.enforce(point, asked)
        if answer.allowed:
            return ()
        reason = answer.decision.get("reason")
        errors = reason.get("errors", []) if isinstance(reason, dict) else [answer.decision["policyError"]]
        return tuple(str(one) for one in errors)
    finally:
        session.close()


def _of_the_pod(asked: Mapping[str, Any], said: Sequence[str]) -> list[Mapping[str, Any]]:
    """The pod's network files, which its policy had been told of, unless it says otherwise."""
    refused = {name for one in said for name in mounts_named(one)}
    return [
        mount
        for mount in objects_in(asked.get("mounts"))
        if str(mount.get("destination")) in _NETWORK_FILES - refused
    ]


def mounts_named(error: str) -> list[str]:
    """Return the destinations that a reason names."""
    start = "invalid mount list: "
    return error.removeprefix(start).split(",") if error.startswith(start) else []


def _remembered(point: str, asked: Mapping[str, Any], alone: Mapping[str, Any]) -> list[Operation]:
    id = str(asked.get("containerID", ""))
    found = [Operation("map", "matches", "add", id, [alone])]
    if point != "create_container":
        started = {"privileged": bool(alone.get("allow_elevated"))}
        found.append(Operation("map", "started", "add", id, started))
    sources = {str(mount.get("source")) for mount in objects_in(asked.get("mounts"))}
    shares = [source for source in sources if source.startswith(f"/run/gcs/c/{id}/mounts/m")]
    return found + [Operation("map", "p9mounts", "add", source, id) for source in shares]


def _policy(container: Mapping[str, Any], drops: bool) -> str:
    lines = [
        "package policy",
        'api_version := "0.12.0"',
        'framework_version := "0.5.0"',
        f"containers := {json.dumps([container])}",
        f"allow_capability_dropping := {json.dumps(drops)}",
        *(f"{one} := data.framework.{one}" for one in FRAMEWORK_POINTS),
        "reason := data.framework.reason",
    ]
    return "\n".join(lines) + "\n"
