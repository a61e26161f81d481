"""The policy's input for a container's processes (spec policy.md 6.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from uvmd.linux.accounts import Accounts
from uvmd.oci.annotations import PRIVILEGED, annotations_of, read_flag
from uvmd.oci.role import Kind, Role
from uvmd.oci.seccomp import seccomp_hash
from uvmd.oci.spec import Spec
from uvmd.oci.user_info import UserInfo, no_user_info, user_info

_CAPABILITY_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")


def who_runs(process: dict[str, Any], accounts: Accounts | None) -> UserInfo:
    """Return the user for the policy; without ``accounts`` it does not want to know."""
    return no_user_info() if accounts is None else user_info(process, accounts)


def create_input(
    container_id: str, role: Role, spec: Spec, devices: Sequence[dict[str, Any]], who: UserInfo
) -> dict[str, Any]:
    """Return what ``create_container`` is asked with. ``devices`` are the host's and plugins' own."""
    process = spec["process"]
    # Whatever the pod's directory is: policies are written for this one.
    sandbox = f"/run/gcs/c/{role.pod_id}"
    return {
        "containerID": container_id,
        "argList": process.get("args"),
        "envList": process.get("env", []),
        "workingDir": process.get("cwd", ""),
        "sandboxDir": f"{sandbox}/sandboxMounts",
        "hugePagesDir": f"{sandbox}/hugepages",
        "mounts": [_mount(mount) for mount in spec.get("mounts", ())],
        "devices": [_device(device) for device in devices],
        "privileged": read_flag(annotations_of(spec), PRIVILEGED),
        "noNewPrivileges": process.get("noNewPrivileges", False),
        "user": who.user,
        "groups": who.groups,
        "umask": who.umask,
        "capabilities": _capabilities(process),
        "seccompProfileSHA256": seccomp_hash(spec["linux"].get("seccomp")),
        "isSandboxContainer": role.kind is Kind.SANDBOX,
    }


def exec_input(container_id: str, process: dict[str, Any], who: UserInfo) -> dict[str, Any]:
    """Return what ``exec_in_container`` is asked with."""
    return {
        "containerID": container_id,
        "argList": process.get("args"),
        "envList": process.get("env"),
        "workingDir": process.get("cwd", ""),
        "noNewPrivileges": process.get("noNewPrivileges", False),
        "user": who.user,
        "groups": who.groups,
        "umask": who.umask,
        "capabilities": _capabilities(process),
    }


def _capabilities(process: dict[str, Any]) -> dict[str, Any] | None:
    """None for a process without the section: a policy refuses that (policy.md 6.3)."""
    found = process.get("capabilities")
    return None if found is None else {name: found.get(name, []) for name in _CAPABILITY_SETS}


def _mount(mount: dict[str, Any]) -> dict[str, Any]:
    return {
        "destination": mount.get("destination", ""),
        "source": mount.get("source", ""),
        "options": mount.get("options"),
        "type": mount.get("type", ""),
    }


def _device(device: dict[str, Any]) -> dict[str, Any]:
    return {
        "path": device.get("path", ""),
        "type": device.get("type", ""),
        "major": device.get("major", 0),
        "minor": device.get("minor", 0),
        "fileMode": device.get("fileMode"),
        "uid": device.get("uid"),
        "gid": device.get("gid"),
    }
