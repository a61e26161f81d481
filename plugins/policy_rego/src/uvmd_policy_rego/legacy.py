"""Policies in the JSON that tools wrote before Rego, as the Rego that they meant (policy.md 16)."""

from __future__ import annotations

import json
from typing import Any

_POINTS = (
    "mount_device rw_mount_device mount_blockdev unmount_device rw_unmount_device unmount_blockdev "
    "mount_overlay unmount_overlay shutdown_container signal_container_process plan9_mount plan9_unmount "
    "get_properties dump_stacks runtime_logging load_fragment scratch_mount scratch_unmount "
    "load_transparency_trust_list host_network"
)
OPEN_DOOR_POINTS = _POINTS.split()
FRAMEWORK_POINTS = [*OPEN_DOOR_POINTS, "create_container", "exec_in_container", "exec_external"]
_ANY = {"pattern": "", "strategy": "any"}


class LegacyError(Exception):
    """The JSON is no policy; the text says where."""


def policy_text(text: str) -> str:
    """Return a policy's Rego: itself, or what a legacy JSON policy stands for.

    Raises:
        LegacyError: JSON that is no policy.
    """
    if not text.lstrip().startswith("{"):
        return text
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return text  # the engine says what is wrong with it
    if document.get("allow_all") is True:
        if _elements(document.get("containers") or {}, "element"):
            raise LegacyError("Invalid policy for open-door enforcer")
        return _open_door()
    containers = [_container(one) for one in _elements(document.get("containers") or {}, "element")]
    flags = {
        "allow_properties_access": True,
        "allow_dump_stacks": True,
        "allow_runtime_logging": True,
        "allow_environment_variable_dropping": False,
        "allow_unencrypted_scratch": True,
        "allow_capability_dropping": False,
    }
    lines = [
        "package policy",
        'api_version := "0.12.0"',
        'framework_version := "0.5.0"',
        f"containers := {json.dumps(containers)}",
        *(f"{name} := {json.dumps(value)}" for name, value in flags.items()),
        *(f"{point} := data.framework.{point}" for point in FRAMEWORK_POINTS),
        "reason := data.framework.reason",
    ]
    return "\n".join(lines) + "\n"


def _open_door() -> str:
    lines = ["package policy", 'api_version := "0.12.0"']
    lines += [f'{point} := {{"allowed": true}}' for point in OPEN_DOOR_POINTS]
    lines += [
        'create_container := {"allowed": true, "env_list": null, "allow_stdio_access": true}',
        'exec_in_container := {"allowed": true, "env_list": null}',
        'exec_external := {"allowed": true, "env_list": null, "allow_stdio_access": true}',
    ]
    return "\n".join(lines) + "\n"


def _elements(listed: Any, what: str) -> list[Any]:
    if not isinstance(listed, dict):
        raise LegacyError(f"{what}s are no map of indices")
    elements = listed.get("elements") or {}
    count = listed.get("length", len(elements))
    if not isinstance(count, int) or count != len(elements):
        count = len(elements)
    found = []
    for index in range(count):
        if str(index) not in elements:
            missing = "doesn't exist" if what == "env rule" else "not found"
            raise LegacyError(f'{what} with index "{index}" {missing}')
        found.append(elements[str(index)])
    return found


def _container(one: Any) -> dict[str, Any]:
    if not isinstance(one, dict):
        raise LegacyError("a container is no object")
    return {
        "command": _elements(one.get("command") or {}, "element"),
        "env_rules": [_env_rule(rule) for rule in _elements(one.get("env_rules") or {}, "env rule")],
        "layers": _elements(one.get("layers") or {}, "element"),
        "mounts": [_mount(mount) for mount in _elements(one.get("mounts") or {}, "mount constraint")],
        "working_dir": one.get("working_dir", ""),
        "allow_elevated": one.get("allow_elevated", False),
        "exec_processes": [],
        "signals": [],
        "allow_stdio_access": True,
        "no_new_privileges": False,
        "user": {"user_idname": _ANY, "group_idnames": [_ANY], "umask": "0022"},
        "capabilities": None,
        "seccomp_profile_sha256": "",
    }


def _env_rule(rule: Any) -> dict[str, Any]:
    if not isinstance(rule, dict):
        raise LegacyError("an env rule is no object")
    return {
        "pattern": rule.get("rule", ""),
        "strategy": rule.get("strategy", ""),
        "required": rule.get("required", False),
    }


def _mount(mount: Any) -> dict[str, Any]:
    if not isinstance(mount, dict):
        raise LegacyError("a mount constraint is no object")
    return {
        "source": mount.get("source", ""),
        "destination": mount.get("destination", ""),
        "type": mount.get("type", ""),
        "options": _elements(mount.get("options") or {}, "element"),
    }
