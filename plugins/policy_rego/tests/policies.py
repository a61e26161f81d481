"""Policies as tools write them, and the requests that they allow."""

from __future__ import annotations

import json
from typing import Any

from uvmd_policy_rego.legacy import FRAMEWORK_POINTS

ID = "a" * 64
OTHER = "b" * 64
ROOT = f"/run/gcs/c/{ID}"
MOUNT_PATHS = "/run/mounts/scsi/m[0-9]+"
SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")
ALIASES = "".join(f"{point} := data.framework.{point}\n" for point in FRAMEWORK_POINTS)
REASON = "reason := data.framework.reason\n"


def caps(*names: str) -> dict[str, list[str]]:
    return {
        "bounding": [*names],
        "effective": [*names],
        "inheritable": [],
        "permitted": [*names],
        "ambient": [],
    }


def rule(pattern: str, strategy: str = "string", required: bool = False) -> dict[str, Any]:
    return {"pattern": pattern, "strategy": strategy, "required": required}


def container(**changes: Any) -> dict[str, Any]:
    return {
        "command": ["web", "--port", "80"],
        "env_rules": [rule("PATH=/bin"), rule("TOKEN=.+", "re2")],
        "layers": ["base", "top"],
        "mounts": [
            {
                "destination": "/data",
                "source": "sandbox:///data/.+",
                "type": "bind",
                "options": ["rbind", "rw"],
            }
        ],
        "exec_processes": [{"command": ["sh"], "signals": [2]}],
        "signals": [15],
        "user": {
            "user_idname": {"pattern": "1000", "strategy": "id"},
            "group_idnames": [{"pattern": "web.*", "strategy": "re2"}],
            "umask": "0022",
        },
        "capabilities": caps("CAP_KILL"),
        "seccomp_profile_sha256": "",
        "allow_elevated": False,
        "working_dir": "/srv",
        "allow_stdio_access": True,
        "no_new_privileges": True,
    } | changes


def policy(
    *containers: Any, framework: str = "0.5.0", api: str = "0.12.0", more: str = "", **rules: Any
) -> str:
    lists = {"containers": list(containers or (container(),)), **rules}
    text = f'package policy\napi_version := "{api}"\nframework_version := "{framework}"\n'
    text += "".join(f"{name} := {json.dumps(value)}\n" for name, value in lists.items())
    return text + more + ALIASES + REASON


def device(hash: str, number: int) -> dict[str, Any]:
    return {
        "target": f"/run/mounts/scsi/m{number}", "deviceHash": hash, "mountPathRegex": MOUNT_PATHS,
    }  # fmt: skip


def overlay(*numbers: int, id: str = ID) -> dict[str, Any]:
    paths = [f"/run/mounts/scsi/m{number}" for number in numbers]
    return {"containerID": id, "layerPaths": paths, "target": f"/run/gcs/c/{id}/rootfs"}


def create(**changes: Any) -> dict[str, Any]:
    return {
        "containerID": ID,
        "argList": ["web", "--port", "80"],
        "envList": ["PATH=/bin", "TOKEN=s3cret"],
        "workingDir": "/srv",
        "sandboxDir": f"{ROOT}/sandboxMounts",
        "hugePagesDir": f"{ROOT}/hugepages",
        "mounts": [
            {
                "destination": "/data",
                "source": f"{ROOT}/sandboxMounts/data/one",
                "options": ["rw", "rbind"],
                "type": "bind",
            }
        ],
        "devices": [],
        "privileged": False,
        "noNewPrivileges": True,
        "user": {"id": "1000", "name": "me"},
        "groups": [{"id": "5", "name": "webmasters"}],
        "umask": "0022",
        "capabilities": caps("CAP_KILL"),
        "seccompProfileSHA256": "",
        "isSandboxContainer": False,
    } | changes


def execute(**changes: Any) -> dict[str, Any]:
    keys = (
        "containerID",
        "envList",
        "workingDir",
        "noNewPrivileges",
        "user",
        "groups",
        "umask",
        "capabilities",
    )
    whole = create()
    return {key: whole[key] for key in keys} | {"argList": ["sh"]} | changes


EXTERNAL = {
    "command": ["ls"],
    "env_rules": [rule("A=1", required=True)],
    "working_dir": "/",
    "allow_stdio_access": True,
}
