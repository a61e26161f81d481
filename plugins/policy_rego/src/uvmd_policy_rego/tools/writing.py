"""From what a policy declares to its text, byte for byte as the reference's tool writes it.

Policy.md 15.4. The same bytes matter to nobody's decision, but they let two people who
generate from the same file compare one digest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

API_VERSION: Final = "0.12.0"
FRAMEWORK_VERSION: Final = "0.5.0"
FLAGS: Final = (
    "allow_properties_access",
    "allow_dump_stacks",
    "allow_runtime_logging",
    "allow_host_network",
    "allow_environment_variable_dropping",
    "allow_unencrypted_scratch",
    "allow_capability_dropping",
    "allow_log_provider_dropping",
)
LISTS: Final = (
    "fragments",
    "containers",
    "external_processes",
    "platform_rules",
    "transparency_trust_lists",
)
#: In the order of the text; the last but one exist for Windows guests only.
_POINT_WORDS: Final = (
    "mount_device rw_mount_device mount_blockdev unmount_device rw_unmount_device unmount_blockdev "
    "mount_overlay unmount_overlay mount_cims registry_changes create_container exec_in_container "
    "exec_external shutdown_container signal_container_process plan9_mount plan9_unmount get_properties "
    "dump_stacks runtime_logging load_fragment scratch_mount scratch_unmount log_provider "
    "load_transparency_trust_list host_network"
)
POINTS: Final = _POINT_WORDS.split()
#: The points whose answer in an open-door policy says more than yes.
_OPEN_ANSWERS: Final[dict[str, dict[str, Any]]] = {
    "create_container": {"env_list": None, "allow_stdio_access": True},
    "exec_in_container": {"env_list": None},
    "exec_external": {"env_list": None, "allow_stdio_access": True},
}
_OPEN_WORDS: Final = (
    "mount_device rw_mount_device mount_blockdev mount_overlay create_container mount_cims registry_changes "
    "unmount_device rw_unmount_device unmount_blockdev unmount_overlay exec_in_container exec_external "
    "shutdown_container signal_container_process plan9_mount plan9_unmount get_properties dump_stacks "
    "runtime_logging load_fragment scratch_mount scratch_unmount log_provider load_transparency_trust_list "
    "host_network"
)
_OPEN_ORDER: Final = _OPEN_WORDS.split()
_CONTAINER_WORDS: Final = (
    "name command env_rules layers mounts exec_processes signals user capabilities seccomp_profile_sha256 "
    "allow_elevated working_dir allow_stdio_access no_new_privileges"
)
_CONTAINER_KEYS: Final = _CONTAINER_WORDS.split()
_CAPABILITY_SETS: Final = ("bounding", "effective", "inheritable", "permitted", "ambient")
#: What Go's encoder escapes inside texts and Python's does not.
_ESCAPES: Final = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


@dataclass(slots=True)
class Parts:
    """What a policy declares: objects of the data model, and the switches that are on."""

    fragments: list[dict[str, Any]] = field(default_factory=list)
    containers: list[dict[str, Any]] = field(default_factory=list)
    external_processes: list[dict[str, Any]] = field(default_factory=list)
    platform_rules: list[dict[str, Any]] = field(default_factory=list)
    transparency_trust_lists: list[dict[str, Any]] = field(default_factory=list)
    flags: dict[str, bool] = field(default_factory=dict)
    allow_all: bool = False


def policy_text(parts: Parts) -> str:
    """Return the policy."""
    if parts.allow_all:
        return _open_door()
    lines = ["package policy", "", f'api_version := "{API_VERSION}"']
    lines += [f'framework_version := "{FRAMEWORK_VERSION}"', "", *_objects(parts)]
    lines += [f"{name} := {_json(parts.flags.get(name, False))}" for name in FLAGS]
    # One alias without a space, as in the reference's template.
    aliases = (f"{point}{'' if point == 'mount_cims' else ' '}:= data.framework.{point}" for point in POINTS)
    lines += ["", "", *aliases, "reason := data.framework.reason"]
    return "\n".join(lines) + "\n"


def fragment_text(parts: Parts, namespace: str, svn: str) -> str:
    """Return a fragment: no switches, no rules."""
    lines = [f"package {namespace}", "", f"svn := {_json(svn)}"]
    lines += [f'framework_version := "{FRAMEWORK_VERSION}"', "", *_objects(parts)]
    return "\n".join(lines) + "\n"


def _open_door() -> str:
    lines = ["package policy", "", f'api_version := "{API_VERSION}"', ""]
    for point in _OPEN_ORDER:
        answer = {"allowed": True, **_OPEN_ANSWERS.get(point, {})}
        lines.append(f"{point} := {json.dumps(answer)}")
    return "\n".join(lines) + "\n"


def _objects(parts: Parts) -> Iterable[str]:
    for name in LISTS:
        listed = getattr(parts, name)
        if listed:
            yield f"{name} := ["
            for one in listed:
                yield from _container(one) if name == "containers" else (f"    {_json(one)},",)
            yield "]"


def _container(one: Mapping[str, Any]) -> Iterable[str]:
    yield "    {"
    for key in _CONTAINER_KEYS:
        if key == "user":
            yield from _user(one["user"])
        elif key == "capabilities" and one[key] is not None:
            yield '        "capabilities": {'
            yield from (f'            "{name}": {_json(one[key][name])},' for name in _CAPABILITY_SETS)
            yield "        },"
        elif key in one:
            yield f'        "{key}": {_json(one[key])},'
    yield "    },"


def _user(user: Mapping[str, Any]) -> Iterable[str]:
    yield '        "user": {'
    yield f'            "user_idname": {_json(user["user_idname"])},'
    yield f'            "group_idnames": {_json(user["group_idnames"])},'
    yield f'            "umask": {_json(user["umask"])}'
    yield "        },"


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).translate(_ESCAPES)
