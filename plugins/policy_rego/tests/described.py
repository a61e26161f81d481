"""The plain reading of a configuration: what a host may do, decided without any Rego.

Written from what a configuration says to people; the property tests hold the rules to it.
Patterns here are few, and mean the same to Python.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from uvmd_policy_rego import defaults

SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")
USUAL = {name: set(defaults.UNPRIVILEGED_CAPABILITIES) for name in ("bounding", "effective", "permitted")}
ALL = {
    name: set(defaults.PRIVILEGED_CAPABILITIES)
    for name in ("bounding", "effective", "inheritable", "permitted")
}
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Running:
    """A container's description, narrowed by what was asked so far, and its stdio."""

    possible: list[dict[str, Any]]
    privileged: bool = False
    created: bool = False
    stdio: bool = False
    kept: dict[str, Any] = field(default_factory=dict)


def fits(text: str, rule: dict[str, Any]) -> bool:
    if rule["strategy"] == "string":
        return text == rule["rule"]
    return re.fullmatch(rule["rule"], text) is not None


def env_fits(env: list[str], rules: list[dict[str, Any]]) -> bool:
    every = [*rules, {"strategy": "string", "rule": "TERM=xterm"}]
    known = all(any(fits(one, rule) for rule in every) for one in env)
    needed = [rule for rule in rules if rule.get("required")]
    return known and all(any(fits(one, rule) for one in env) for rule in needed)


def is_user(user: dict[str, str], rule: dict[str, str]) -> bool:
    what, text = rule["strategy"], rule.get("rule", "")
    if what == "any":
        return True
    return user["id"] == text if what == "id" else user["name"] == text


def user_fits(input: dict[str, Any], container: dict[str, Any]) -> bool:
    user = container["user"]
    groups = all(any(is_user(one, rule) for rule in user["group_idname"]) for one in input["groups"])
    return input["umask"] == user["umask"] and is_user(input["user"], user["user_idname"]) and groups


def rights_fit(input: dict[str, Any], container: dict[str, Any]) -> bool:
    new_rights = container.get("allow_privilege_escalation", False) or input["noNewPrivileges"]
    return bool(new_rights and user_fits(input, container))


def capabilities_fit(asked: dict[str, list[str]], container: dict[str, Any], privileged: bool) -> bool:
    allowed: dict[str, Any] = container.get("capabilities") or {}
    if "capabilities" not in container:
        allowed = ALL if privileged and container.get("allow_elevated") else USUAL
    return all(
        set(asked[name]) == set(allowed.get(name, ())) and len(set(asked[name])) == len(asked[name])
        for name in SETS
    )


def mount_fits(mount: dict[str, Any], input: dict[str, Any], container: dict[str, Any]) -> bool:
    for one in container.get("mount", []):
        source = one["host_path"].replace("sandbox://", re.escape(input["sandboxDir"]))
        options = {"rbind", "rshared", "ro" if one.get("readonly") else "rw"}
        if (
            mount["destination"] == one["container_path"]
            and mount["type"] == "bind"
            and re.fullmatch(source, mount["source"])
            and sorted(mount["options"]) == sorted(options)
        ):
            return True
    known = defaults.DEFAULT_MOUNTS + (defaults.PRIVILEGED_MOUNTS if container.get("allow_elevated") else [])
    return any(
        all(mount[key] == one[key] for key in ("destination", "source", "type"))
        and sorted(mount["options"]) == sorted(one["options"])
        for one in known
    )


def create(running: Running, input: dict[str, Any]) -> bool:
    """Say whether the description has a container for the request, and remember which."""
    if running.created or input["devices"]:
        return False
    possible = [
        one
        for one in running.possible
        if input["argList"] == one["command"]
        and input["workingDir"] == one["working_dir"]
        and (not input["privileged"] or one.get("allow_elevated", False))
        and rights_fit(input, one)
        and input["seccompProfileSHA256"] == ""
        and all(mount_fits(mount, input, one) for mount in input["mounts"])
        and env_fits(input["envList"], one.get("env_rule", []))
        and capabilities_fit(input["capabilities"], one, input["privileged"])
    ]
    stdio = {one.get("allow_stdio_access", False) for one in possible}
    if len(stdio) != 1:
        return False
    running.possible, running.created = possible, True
    running.privileged, running.stdio = input["privileged"], stdio.pop()
    return True


def execute(running: Running, input: dict[str, Any]) -> bool:
    """Say whether a process may be started in the container."""
    possible = [
        one
        for one in running.possible
        if any(process["command"] == input["argList"] for process in one.get("exec_process", []))
        and input["workingDir"] == one["working_dir"]
        and rights_fit(input, one)
        and env_fits(input["envList"], one.get("env_rule", []))
        and capabilities_fit(input["capabilities"], one, running.privileged)
    ]
    if not running.created or not possible:
        return False
    running.possible = possible
    return True


def signal(running: Running, input: dict[str, Any]) -> bool:
    """Say whether a signal may be sent."""

    def takes(one: dict[str, Any]) -> bool:
        if input["isInitProcess"]:
            return input["signal"] in one.get("signals", [])
        return any(
            process["command"] == input["argList"] and input["signal"] in process.get("signals", [])
            for process in one.get("exec_process", [])
        )

    possible = [one for one in running.possible if takes(one)]
    if not running.created or not possible:
        return False
    running.possible = possible
    return True


def external(processes: list[dict[str, Any]], input: dict[str, Any]) -> bool:
    """Say whether a process may be started beside the containers."""
    possible = [
        one
        for one in processes
        if one["command"] == input["argList"]
        and one["working_dir"] == input["workingDir"]
        and input["envList"]
        and all(env == PATH for env in input["envList"])
    ]
    return len({one.get("allow_stdio_access", False) for one in possible}) == 1
