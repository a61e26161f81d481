"""The request of a create as the policy saw it, from the specification that a host sent.

For a denial that was cut: the host still has what it asked for. As near as can be had
outside of the VM; names of users, which the VM looks up in the image, are not known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from uvmd_policy_rego.defaults import HUGE_PAGES_PREFIX, SANDBOX_PREFIX
from uvmd_policy_rego.tools.errors import PolicyToolError

_PRIVILEGED = "io.microsoft.virtualmachine.lcow.privileged"
_KIND, _POD = "io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"
_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")
_DIRECTORIES = {SANDBOX_PREFIX: "sandboxMounts", HUGE_PAGES_PREFIX: "hugepages"}


def read_spec(text: str) -> dict[str, Any]:
    """Return the input of ``create_container`` for an OCI specification (config.json).

    Raises:
        PolicyToolError: it is none.
    """
    try:
        spec = json.loads(text)
    except (ValueError, RecursionError):
        raise PolicyToolError("the specification is not JSON") from None
    if not isinstance(spec, dict) or not isinstance(spec.get("process"), dict):
        raise PolicyToolError("the specification has no process")
    return _input(spec, spec["process"], _map(spec.get("annotations")))


def _input(
    spec: Mapping[str, Any], process: Mapping[str, Any], annotations: Mapping[str, Any]
) -> dict[str, Any]:
    user, capabilities = _map(process.get("user")), _map(process.get("capabilities"))
    root = f"/run/gcs/c/{annotations.get(_POD, '')}"
    listed = spec.get("mounts")
    mounts = (
        [_mount(one, root) for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    )
    devices = _map(spec.get("linux")).get("devices")
    umask = user.get("umask")
    return {
        "containerID": "",  # a specification has none
        "argList": process.get("args"),
        "envList": process.get("env") or [],
        "workingDir": process.get("cwd", ""),
        "sandboxDir": f"{root}/sandboxMounts",
        "hugePagesDir": f"{root}/hugepages",
        "mounts": mounts,
        "devices": devices if isinstance(devices, list) else [],
        "privileged": annotations.get(_PRIVILEGED) == "true",
        "noNewPrivileges": bool(process.get("noNewPrivileges", False)),
        "user": {"id": str(user.get("uid", 0)), "name": ""},
        "groups": [{"id": str(user.get("gid", 0)), "name": ""}],
        "umask": f"{umask:04o}" if isinstance(umask, int) else "0022",
        "capabilities": {name: capabilities.get(name) or [] for name in _SETS},
        "seccompProfileSHA256": "",
        "isSandboxContainer": annotations.get(_KIND) == "sandbox",
    }


def _mount(one: Mapping[str, Any], root: str) -> dict[str, Any]:
    source = str(one.get("source", ""))
    for prefix, directory in _DIRECTORIES.items():
        if source.startswith(prefix):
            source = f"{root}/{directory}{source.removeprefix(prefix)}"
    return {
        "destination": one.get("destination", ""),
        "source": source,
        "options": one.get("options"),
        "type": one.get("type", ""),
    }


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
