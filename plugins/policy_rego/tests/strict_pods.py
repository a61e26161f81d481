"""A pod under a strict policy: its specifications, the policy that describes them, and its requests."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import policies

from support import pods
from support.containers import new_id
from support.host import CREATE, DELETE, MODIFY, NULL_ID, ZERO_GUID, Connection, code
from uvmd_policy_rego.enforcer import encode

ANY = {"pattern": "", "strategy": "any"}
PAUSE, SERVE = ("/bin/sleep", "86400"), ("/bin/sleep", "3600")
ECHO = ["/bin/echo", "hello"]


def body(container_id: str, **fields: object) -> dict[str, object]:
    return {"ContainerId": container_id, "ActivityId": ZERO_GUID, **fields}


def describe(spec: dict[str, Any], layers: Sequence[str], **changes: Any) -> dict[str, Any]:
    """The constraints of a container that a host asks for with this specification."""
    process, keys = spec["process"], ("destination", "source", "type", "options")
    return (
        policies.container(
            command=process["args"],
            env_rules=[policies.rule(env) for env in process["env"]],
            layers=list(layers),
            mounts=[{key: mount.get(key) for key in keys} for mount in spec["mounts"]],
            exec_processes=[{"command": ECHO, "signals": [15]}],
            signals=[9, 15],
            user={"user_idname": ANY, "group_idnames": [ANY], "umask": "0022"},
            capabilities={name: process["capabilities"].get(name, []) for name in policies.SETS},
            working_dir=process["cwd"],
            no_new_privileges=process["noNewPrivileges"],
        )
        | changes
    )


def set_policy(bridge: Connection, text: str) -> None:
    bridge.modify(NULL_ID, "SecurityPolicy", settings={"EncodedSecurityPolicy": encode(text)})


def reasons(answer: dict[str, Any]) -> list[str]:
    """The errors of the decision document in an answer; before it stands a sentence."""
    text = answer["ErrorMessage"]
    found = re.search("policyDecision< (.*) >policyDecision", text)
    assert found, text
    assert "The security policy does not allow" in text
    reason = json.loads(base64.b64decode(found.group(1)))["reason"]
    return list(reason["errors"]) if isinstance(reason, dict) else [reason]


class Pod:
    """A sandbox and one workload, at the only places that a strict VM takes.

    The scratch disk is mounted at the sandbox's bundle, as hosts of confidential VMs do it.
    """

    def __init__(self, layers: Sequence[str]) -> None:
        self.sandbox, self.workload = new_id(), new_id()
        self.layers = list(layers)

    def root(self, id: str) -> Path:
        return Path("/run/gcs/c") / id / "rootfs"

    def scratch(self, id: str) -> str:
        return f"/run/gcs/c/{self.sandbox}/scratch/{id}"

    def sandbox_spec(self, **changes: Any) -> dict[str, Any]:
        return pods.sandbox_spec(self.sandbox, *PAUSE, root=self.root(self.sandbox), **changes)

    def workload_spec(self, **changes: Any) -> dict[str, Any]:
        return pods.workload_spec(self.sandbox, *SERVE, root=self.root(self.workload), **changes)

    def described(self, hashes: Sequence[str]) -> list[dict[str, Any]]:
        return [describe(self.sandbox_spec(), hashes), describe(self.workload_spec(), hashes)]

    # Requests

    def overlay(self, id: str, **changes: Any) -> dict[str, Any]:
        return {
            "ContainerID": id,
            "ContainerRootPath": str(self.root(id)),
            "Layers": [{"Path": path} for path in self.layers],
            "ScratchPath": self.scratch(id),
        } | changes

    def create_body(self, bridge: Connection, id: str, spec: dict[str, Any], **fields: Any) -> dict[str, Any]:
        places = {"OciBundlePath": f"/run/gcs/c/{id}", "ScratchDirPath": self.scratch(id)} | fields
        config = bridge.host.container_config(id, spec, **places)
        return dict(body(id, ContainerConfig=config))

    def create(self, bridge: Connection, id: str, spec: dict[str, Any], **fields: Any) -> dict[str, Any]:
        return bridge.ask(CREATE, self.create_body(bridge, id, spec, **fields))

    def both(self) -> list[tuple[str, dict[str, Any]]]:
        return [(self.sandbox, self.sandbox_spec()), (self.workload, self.workload_spec())]


def modify(bridge: Connection, type_: str, request: str, settings: Any, id: str = NULL_ID) -> dict[str, Any]:
    inner = {"RequestType": request, "ResourceType": type_, "Settings": settings}
    return bridge.ask(MODIFY, body(id, Request=inner))


def fine(answer: dict[str, Any]) -> dict[str, Any]:
    assert code(answer) == "S_OK", answer.get("ErrorMessage")
    return answer


def delete(bridge: Connection, id: str) -> dict[str, Any]:
    return bridge.ask(DELETE, body(id))
