"""Policies in the shape that Azure's tool writes them (policy.md 15.2), and an infrastructure fragment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import policies

from uvmd_policy_rego.defaults import UNPRIVILEGED_CAPABILITIES

PAUSE_LAYER = "16b514057a06ad665f92c02863aca074fd5976c755d26bff16365299169e8415"
ISSUER = "did:x509:0:sha256:I__iuL25oXEVFdTP_aBLx_eT1RPHbCQ_ECBQfYZpt9s::eku:1.3.6.1.4.1.311.76.59.1.3"
FEED = "mcr.microsoft.com/aci/aci-cc-infra-fragment"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ANY = {"pattern": "", "strategy": "any"}
#: The aliases of API 0.10.0; a document for 0.11.0 has one more and lacks its counterpart.
POINTS = [
    "mount_device",
    "unmount_device",
    "mount_overlay",
    "unmount_overlay",
    "create_container",
    "exec_in_container",
    "exec_external",
    "shutdown_container",
    "signal_container_process",
    "plan9_mount",
    "plan9_unmount",
    "get_properties",
    "dump_stacks",
    "runtime_logging",
    "load_fragment",
    "scratch_mount",
    "scratch_unmount",
]
FLAGS = {
    "allow_properties_access": True,
    "allow_dump_stacks": False,
    "allow_runtime_logging": False,
    "allow_environment_variable_dropping": True,
    "allow_unencrypted_scratch": False,
    "allow_capability_dropping": True,
}


def pattern(text: str, strategy: str = "re2", required: bool = False) -> dict[str, Any]:
    return {"pattern": text, "required": required, "strategy": strategy}


def mount(destination: str, volume: str, access: str = "rw") -> dict[str, Any]:
    return {
        "destination": destination,
        "options": ["rbind", "rshared", access],
        "source": f"sandbox:///tmp/atlas/{volume}/.+",
        "type": "bind",
    }


def container(name: str, command: Sequence[str], layers: Sequence[str], **changes: Any) -> dict[str, Any]:
    listed = policies.caps(*UNPRIVILEGED_CAPABILITIES)
    return {
        "allow_elevated": False,
        "allow_stdio_access": True,
        "capabilities": listed,
        "command": list(command),
        "env_rules": [
            pattern(PATH, "string"),
            pattern("TERM=xterm", "string"),
            pattern("(?i)(FABRIC)_.+=.+"),
            pattern("((?i)IDENTITY)_.+=.+"),
            pattern("HOSTNAME=.+"),
            pattern("T(E)?MP=.+"),
        ],
        "exec_processes": [],
        "id": f"registry.example/{name}:latest",
        "layers": list(layers),
        "mounts": [mount("/etc/resolv.conf", "resolvconf")],
        "name": name,
        "no_new_privileges": False,
        "seccomp_profile_sha256": "",
        "signals": [],
        "user": {"group_idnames": [ANY], "umask": "0022", "user_idname": ANY},
        "working_dir": "/",
    } | changes


PAUSE = container(
    "pause-container",
    ["/pause"],
    [PAUSE_LAYER],
    env_rules=[pattern(PATH, "string", True), pattern("TERM=xterm", "string")],
    mounts=[],
)


def policy(
    *containers: Any, api: str = "0.10.0", framework: str = "0.2.3", names: str = "version", **more: Any
) -> str:
    """The template: versions, imports, containers, flags, aliases, and a reason without candidates."""
    imports = [{"feed": FEED, "includes": ["containers", "fragments"], "issuer": ISSUER, "minimum_svn": "1"}]
    lists = {"fragments": imports, "containers": [*containers, PAUSE]} | more
    points = [*POINTS, *(["rw_mount_device"] if api == "0.11.0" else [])]
    lines = ["", "package policy", "", "import future.keywords.every", "import future.keywords.in", ""]
    lines += [f'api_{names} := "{api}"', f'framework_{names} := "{framework}"', ""]
    lines += [f"{name} := {json.dumps(value)}\n" for name, value in lists.items()]
    lines += [f"{name} := {json.dumps(value)}" for name, value in FLAGS.items() if name not in more]
    lines += ["", *(f"{point} := data.framework.{point}" for point in points), ""]
    return "\n".join([*lines, 'reason := {"errors": data.framework.errors}', ""])


def create(described: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """What the container service asks for this container."""
    return policies.create(
        argList=described["command"],
        envList=[PATH, "TERM=xterm", "Fabric_NodeIPOrFQDN=10.0.0.4", "HOSTNAME=web"],
        workingDir="/",
        mounts=[
            {
                "destination": one["destination"],
                "options": one["options"],
                "source": one["source"]
                .replace("sandbox://", f"{policies.ROOT}/sandboxMounts")
                .replace(".+", "a-b_c"),
                "type": "bind",
            }
            for one in described["mounts"]
        ],
        noNewPrivileges=False,
        user={"id": "0", "name": "root"},
        groups=[{"id": "0", "name": "root"}],
        capabilities=policies.caps(*UNPRIVILEGED_CAPABILITIES),
        **changes,
    )


def fragment(*containers: Any, svn: str = '"1"', framework: str = "0.2.3") -> str:
    return (
        f'package infra\n\nsvn := {svn}\nframework_version := "{framework}"\n\n'
        f"fragments := []\n\ncontainers := {json.dumps(list(containers))}\n"
    )
