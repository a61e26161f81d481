"""What differs between a request and one of the things that it could have been, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from uvmd_policy_rego import nearest
from uvmd_policy_rego.nearest import likeness
from uvmd_policy_rego.tools.closest import CAPABILITIES, listed_in, mounts_named, objects_in

_SUBJECTS = (
    "containerID", "target", "unmountTarget", "argList", "issuer", "resource_type",
)  # fmt: skip
_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")


def subject(point: str, input: Mapping[str, Any]) -> str:
    """Name what a request is about."""
    for key in _SUBJECTS:
        if key == "argList" and point != "exec_external":
            continue
        if input.get(key):
            return _shown(input[key])
    return ""


def name_of(candidate: Any, number: int) -> str:
    """Name a candidate for people: by what the policy calls it, else by its command."""
    if not isinstance(candidate, dict):
        return f"number {number + 1}"
    for key in ("name", "id", "feed", "subject"):
        if isinstance(candidate.get(key), str) and candidate[key]:
            return f"{candidate[key]} (number {number + 1})"
    command = candidate.get("command")
    return f"number {number + 1}, {_shown(command)}" if command else f"number {number + 1}"


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else f"{text[:297]}..."


def _names(value: Any) -> set[str]:
    return {str(one) for one in value} if isinstance(value, list | tuple) else set()


# Containers


def of_container(
    point: str,
    input: Mapping[str, Any],
    candidate: Mapping[str, Any],
    errors: Sequence[str],
    said: Sequence[str],
) -> list[str]:
    """Say what of a request is not as the container: ``errors`` are its own, ``said`` all of them."""
    found: list[str] = []
    for error in errors:
        found += _of_error(point, error, input, candidate)
    for error in said:
        if error.startswith("invalid env list: "):
            names = error.removeprefix("invalid env list: ").split(",")
            found += [_variable(name, candidate) for name in names]
        elif error.startswith("missing required environment"):
            found += _required(input, candidate)
    return list(dict.fromkeys(found))


def _of_error(point: str, error: str, input: Mapping[str, Any], candidate: Mapping[str, Any]) -> list[str]:
    if error == "invalid command":
        if point == "exec_in_container":
            return [_processes(input, candidate)]
        return [command(input.get("argList"), candidate.get("command"))]
    if error.startswith("invalid mount list: "):
        return [_mount(name, input, candidate) for name in mounts_named(error)]
    if error == "capabilities don't match":
        return _capabilities(input, candidate)
    simple = {
        "invalid working directory": ("working directory", "workingDir", "working_dir"),
        "invalid seccomp": ("seccomp profile", "seccompProfileSHA256", "seccomp_profile_sha256"),
        "invalid noNewPrivileges": ("noNewPrivileges", "noNewPrivileges", "no_new_privileges"),
        "privileged escalation not allowed": ("privileged", "privileged", "allow_elevated"),
    }
    if error in simple:
        what, asked, allowed = simple[error]
        if point == "exec_in_container" and input.get(asked) == candidate.get(allowed):
            return []  # said of every exec: policy.md 19.24
        return [f"{what}: asked {_shown(input.get(asked))}, the policy has {_shown(candidate.get(allowed))}"]
    if error == "invalid user":
        return [] if point == "exec_in_container" else [_user(input, candidate)]
    if error == "devices not supported":
        paths = [one.get("path") for one in objects_in(input.get("devices"))]
        return [f"devices: asked {_shown(paths)}, the policy never has any"]
    return [error]


def command(asked: Any, allowed: Any) -> str:
    """Say where two commands part."""
    return f"command: {nearest.command(asked, allowed)}"


def _processes(input: Mapping[str, Any], candidate: Mapping[str, Any]) -> str:
    listed = [one.get("command") for one in objects_in(candidate.get("exec_processes"))]
    if not listed:
        return "command: this container lists no processes to execute"
    best = max(listed, key=lambda one: likeness(input.get("argList"), one))
    return f"{command(input.get('argList'), best)} (the closest of {len(listed)} listed processes)"


def _user(input: Mapping[str, Any], candidate: Mapping[str, Any]) -> str:
    rules = candidate.get("user")
    if not isinstance(rules, dict):
        return "user: this container describes none"
    asked = f"{_who(input.get('user'))}, groups {[_who(one) for one in listed_in(input.get('groups'))]}"
    groups = [_rule(one) for one in listed_in(rules.get("group_idnames"))]
    has = f"{_rule(rules.get('user_idname'))}, groups {groups}, umask {rules.get('umask')}"
    return f"user: asked {asked}, umask {input.get('umask')}; the policy has {has}"


def _who(one: Any) -> str:
    if not isinstance(one, dict):
        return "?"
    return f"{one.get('id')} ({one['name']})" if one.get("name") else str(one.get("id"))


def _rule(one: Any) -> str:
    if not isinstance(one, dict):
        return "?"
    if one.get("strategy") == "any":
        return "any"
    return f"{one.get('strategy')} {one.get('pattern')}"


def _mount(destination: str, input: Mapping[str, Any], candidate: Mapping[str, Any]) -> str:
    asked = next(
        (one for one in objects_in(input.get("mounts")) if one.get("destination") == destination), None
    )
    rule = next(
        (one for one in objects_in(candidate.get("mounts")) if one.get("destination") == destination), None
    )
    if asked is None or rule is None:
        return f"mount {destination}: the policy has none there"
    parts = []
    if asked.get("type") != rule.get("type"):
        parts.append(f"type {_shown(asked.get('type'))} instead of {_shown(rule.get('type'))}")
    wanted, given = _names(rule.get("options")), _names(asked.get("options"))
    if wanted != given or asked.get("options") is None:
        parts.append(f"options {sorted(given)} instead of {sorted(wanted)}")
    if not parts:
        parts.append(f"source {_shown(asked.get('source'))} does not match {_shown(rule.get('source'))}")
    return f"mount {destination}: {', '.join(parts)}"


def _capabilities(input: Mapping[str, Any], candidate: Mapping[str, Any]) -> list[str]:
    asked, has = _sets(input.get("capabilities")), _sets(candidate.get("capabilities"))
    if has is None:
        kind = "privileged" if input.get("privileged") and candidate.get("allow_elevated") else "unprivileged"
        has = CAPABILITIES[f"[{kind}]"]
    found = []
    for name in _SETS:
        given, listed = _names((asked or {}).get(name)), _names(has.get(name))
        if given != listed:
            more, fewer = sorted(given - listed), sorted(listed - given)
            parts = [f"too many {_shown(more)}"] * bool(more) + [f"missing {_shown(fewer)}"] * bool(fewer)
            found.append(f"{name} capabilities: {', '.join(parts)}")
    return found or ["capabilities: one of the lists has duplicates"]


def _sets(value: Any) -> Mapping[str, Sequence[str]] | None:
    if isinstance(value, str):
        return CAPABILITIES.get(value)
    return value if isinstance(value, dict) else None


def _variable(name: str, candidate: Mapping[str, Any]) -> str:
    rules = [one for one in objects_in(candidate.get("env_rules"))]
    of_name = [one for one in rules if str(one.get("pattern") or one.get("name") or "").split("=")[0] == name]
    if not of_name:
        return f"environment: no rule names {name}"
    patterns = [one.get("pattern") or f"{one.get('name')}={one.get('value')}" for one in of_name]
    return f"environment: {name} has another value than {_shown(patterns)} (values are not in a denial)"


def _required(input: Mapping[str, Any], candidate: Mapping[str, Any]) -> list[str]:
    names = {str(one).split("=")[0] for one in listed_in(input.get("envList"))}
    found = []
    for one in objects_in(candidate.get("env_rules")):
        if one.get("required", False) is not False:
            name = str(one.get("pattern") or one.get("name") or "").split("=")[0]
            state = "has another value" if name in names else "is missing"
            found.append(f"environment: {name} is required and {state}")
    return found


# Everything else


def ranked(
    point: str, input: Mapping[str, Any], candidates: Sequence[Any], said: Sequence[str]
) -> tuple[int, list[str]] | None:
    """Return the number of the closest candidate and what differs; None where nothing compares."""
    compare = {
        "exec_in_container": _process,
        "exec_external": _process,
        "load_fragment": _import,
        "load_transparency_trust_list": _trust_list,
        "signal_container_process": _signals,
    }.get(point)
    if compare is None:
        return None
    found = [(*compare(input, one), number) for number, one in enumerate(candidates) if isinstance(one, dict)]
    if not found:
        return None
    _, words, number = min(found, key=lambda one: (one[0], one[2]))
    if any(one.startswith("missing required environment") for one in said):
        words = words + _required(input, candidates[number])
    return number, words


def _process(input: Mapping[str, Any], candidate: Mapping[str, Any]) -> tuple[float, list[str]]:
    asked, listed = input.get("argList"), candidate.get("command")
    words = [] if asked == listed else [command(asked, listed)]
    distance = 2.0 - 2 * likeness(asked, listed)
    if "working_dir" in candidate and candidate["working_dir"] != input.get("workingDir"):
        asked_dir, has = _shown(input.get("workingDir")), _shown(candidate["working_dir"])
        words.append(f"working directory: asked {asked_dir}, the policy has {has}")
        distance += 1
    return distance, words


def _against(what: str, asked: Any, has: Any) -> str:
    return f"{what} {_shown(asked)}, the policy has {_shown(has)}"


def _other_names(
    what: str, keys: tuple[str, str], input: Mapping[str, Any], candidate: Mapping[str, Any]
) -> list[str]:
    return [
        _against(f"{key}: the {what}'s is", input.get(key), candidate.get(key))
        for key in keys
        if input.get(key) != candidate.get(key)
    ]


def _import(input: Mapping[str, Any], candidate: Mapping[str, Any]) -> tuple[float, list[str]]:
    words = _other_names("fragment", ("issuer", "feed"), input, candidate)
    distance = float(len(words))
    if not words:
        header = f" (its envelope says {input.get('header_svn')})" if input.get("has_header_svn") else ""
        words.append(f"minimum_svn: the policy wants {_shown(candidate.get('minimum_svn'))}{header}")
        if candidate.get("required_receipts"):
            words.append(f"receipts: the policy wants {_shown(candidate['required_receipts'])}")
    return distance, words


def _trust_list(input: Mapping[str, Any], candidate: Mapping[str, Any]) -> tuple[float, list[str]]:
    words = _other_names("list", ("issuer", "subject"), input, candidate)
    distance = float(len(words))
    if not words:
        words.append(_against("minimum_svn: the list's is", input.get("svn"), candidate.get("minimum_svn")))
        words.append(_against("ledgers: offered", input.get("ledgers"), candidate.get("allowed_ledgers")))
    return distance, words


def _signals(input: Mapping[str, Any], candidate: Mapping[str, Any]) -> tuple[float, list[str]]:
    if input.get("isInitProcess"):
        listed = candidate.get("signals")
        return 0.0, [f"signal {input.get('signal')}: init of this container takes {_shown(listed)}"]
    processes = [one for one in objects_in(candidate.get("exec_processes"))]
    if not processes:
        return 9.0, ["this container lists no processes to execute"]
    best = max(processes, key=lambda one: likeness(input.get("argList"), one.get("command")))
    words = [
        f"signal {input.get('signal')}: {_shown(best.get('command'))} takes {_shown(best.get('signals'))}"
    ]
    return 2.0 - likeness(input.get("argList"), best.get("command")), words
