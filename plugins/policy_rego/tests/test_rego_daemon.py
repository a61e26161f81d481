"""A strict VM from outside: a policy set over the bridge decides what the real daemon does (root)."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import policies
import pytest

from support import specs
from support.containers import Container, new_id
from support.daemon import Daemon, children, command_line, is_running, running
from support.host import CREATE, GET_PROPERTIES, MODIFY, NULL_ID, ZERO_GUID, Connection, code
from support.strict import strict_root
from uvmd_policy_rego.enforcer import encode

pytestmark = [pytest.mark.root, pytest.mark.system]


def body(container_id: str, **fields: object) -> dict[str, object]:
    return {"ContainerId": container_id, "ActivityId": ZERO_GUID, **fields}


def policy_for(spec: dict[str, Any], bundle: Path) -> str:
    """A policy that allows this container, whatever was mounted below it by somebody else."""
    process = spec["process"]
    keys = ("destination", "source", "type", "options")
    listed = [{key: mount.get(key) for key in keys} for mount in spec.get("mounts", [])]
    network = [
        {"destination": f"/etc/{name}", "source": f"{bundle}/{name}", "type": "bind", "options": options}
        for name in ("hostname", "hosts", "resolv.conf")
        for options in (["bind"], ["bind", "ro"])
    ]
    described = policies.container(
        command=process["args"],
        env_rules=[policies.rule(env) for env in process["env"]] + [policies.rule("TERM=.*", "re2")],
        layers=[],
        mounts=[*listed, *network],
        exec_processes=[{"command": ["/bin/echo", "hello"], "signals": []}],
        signals=[9, 15],
        user={
            "user_idname": {"pattern": "", "strategy": "any"},
            "group_idnames": [{"pattern": "", "strategy": "any"}],
            "umask": "0022",
        },
        capabilities={name: process.get("capabilities", {}).get(name, []) for name in policies.SETS},
        working_dir=process["cwd"],
        no_new_privileges=False,
    )
    return policies.policy(described, allow_runtime_logging=True)


@contextlib.contextmanager
def places() -> Iterator[tuple[str, Path]]:
    """An id with its root in the only place that a strict VM takes."""
    container_id = new_id()
    with strict_root(container_id) as root:
        yield container_id, root


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with running(options={"plugins-require": "policy_rego", "paths-bundle-roots": "/run/gcs"}) as one:
        yield one


def set_policy(bridge: Connection, text: str) -> None:
    bridge.modify(NULL_ID, "SecurityPolicy", settings={"EncodedSecurityPolicy": encode(text)})


def reasons(answer: dict[str, Any]) -> list[str]:
    """The errors of the decision document in an answer; before it stands a sentence."""
    text = answer["ErrorMessage"]
    found = re.search("policyDecision< (.*) >policyDecision", text)
    assert found, text
    assert "The security policy does not allow" in text
    document = json.loads(base64.b64decode(found.group(1)))
    assert isinstance(document["reason"], dict), document
    errors: list[str] = document["reason"]["errors"]
    return errors


def with_overlay(text: str, container_id: str) -> str:
    """No disks in this VM: let the policy take the place of the layers for this id."""
    allowed = {"name": "matches", "action": "add", "key": container_id}
    rule = f'object.union({json.dumps(allowed)}, {{"value": containers}})'
    text = text.replace("get_properties := data.framework.get_properties\n", "")
    return f'{text}get_properties := {{"allowed": true, "metadata": [{rule}]}}\n'


def create(bridge: Connection, container_id: str, root: Path, spec: dict[str, Any]) -> dict[str, Any]:
    bundle = root.parent
    config = bridge.host.container_config(
        container_id, spec, OciBundlePath=str(bundle), ScratchDirPath=str(bundle / "scratch" / container_id)
    )
    return bridge.ask(CREATE, body(container_id, ContainerConfig=config))


def test_the_id_of_a_create_that_failed_stays_used(daemon: Daemon) -> None:
    bridge = daemon.connect()
    with places() as (container_id, root):
        spec = specs.container("/no/such/program", root=root)
        set_policy(bridge, with_overlay(policy_for(spec, root.parent), container_id))
        bridge.ask(GET_PROPERTIES, body(container_id))  # plays the overlay's part
        first = create(bridge, container_id, root, spec)
        assert "/no/such/program" in first["ErrorMessage"]
        # The registry is free again, and the policy remembers, as the reference's does.
        assert reasons(create(bridge, container_id, root, spec)) == ["container already started"]
    bridge.close()


def test_the_described_container_runs_and_a_changed_command_is_denied_with_the_reason(daemon: Daemon) -> None:
    bridge = daemon.connect()
    with places() as (container_id, root):
        spec = specs.container("/bin/sleep", "60", root=root)
        set_policy(bridge, with_overlay(policy_for(spec, root.parent), container_id))
        assert code(create(bridge, container_id, root, spec)) == "E_FAIL", "no overlay yet"
        bridge.ask(GET_PROPERTIES, body(container_id))  # plays the overlay's part, see above
        changed = {**spec, "process": {**spec["process"], "args": ["/bin/sleep", "61"]}}
        denied = create(bridge, container_id, root, changed)
        assert code(denied) == "E_FAIL"
        assert reasons(denied) == ["invalid command"]
        allowed = create(bridge, container_id, root, spec)
        assert code(allowed) == "S_OK", allowed.get("ErrorMessage")
        container = Container(bridge, container_id)
        container.init(stdout=True)
        assert container.exec("/bin/echo", "hello", stdout=True).wait() == 0
        with pytest.raises(Exception, match="invalid command"):
            container.exec("/bin/echo", "bye", stdout=True)
        container.kill()
        bridge.wait_for_notification(container_id)
        subprocess.run(["umount", str(root)], check=True)
        container.delete()
    bridge.close()


def test_disks_and_overlays_that_the_policy_does_not_know_are_denied(daemon: Daemon) -> None:
    bridge = daemon.connect()
    set_policy(bridge, policies.policy())
    container_id = new_id()
    root = f"/run/gcs/c/{container_id}/rootfs"
    layers = {
        "ContainerID": container_id,
        "ContainerRootPath": root,
        "Layers": [{"Path": f"/run/mounts/scsi/m{number}"} for number in (1, 0)],
    }
    for request, settings, reason in (
        ("Add", layers, "no matching containers for overlay"),
        ("Remove", {"ContainerRootPath": root}, "no overlay at path to unmount"),
    ):
        inner = {"RequestType": request, "ResourceType": "CombinedLayers", "Settings": settings}
        answer = bridge.ask(MODIFY, body(NULL_ID, Request=inner))
        assert code(answer) == "E_FAIL"
        assert reasons(answer) == [reason], answer["ErrorMessage"]
    assert not Path(root).exists()
    assert code(bridge.ask(GET_PROPERTIES, body(container_id))) == "E_FAIL"
    bridge.close()


def test_a_restarted_daemon_goes_on_with_the_policy(daemon: Daemon) -> None:
    bridge = daemon.connect()
    set_policy(bridge, policies.policy())
    daemon.kill_daemon()
    bridge = daemon.connect()
    inner = {
        "RequestType": "Add",
        "ResourceType": "SecurityPolicy",
        "Settings": {"EncodedSecurityPolicy": ""},
    }
    answer = bridge.ask(MODIFY, body(NULL_ID, Request=inner))
    assert code(answer) == "E_FAIL"
    assert code(bridge.ask(GET_PROPERTIES, body(new_id()))) == "E_FAIL"
    bridge.close()


def policyd(daemon: Daemon) -> list[int]:
    found = {pid: " ".join(command_line(pid)) for pid in children(daemon.monitor_pid)}
    return [pid for pid, line in found.items() if "policyd/__main__" in line]


def test_policyd_outlives_the_daemon_and_has_a_successor_when_it_is_killed(daemon: Daemon) -> None:
    bridge = daemon.connect()
    assert policyd(daemon) == []
    set_policy(bridge, policies.policy(allow_properties_access=True))
    (first,) = policyd(daemon)

    def asked() -> str:
        answer = bridge.ask(GET_PROPERTIES, body(new_id()))
        return "denied" if "does not allow" in answer["ErrorMessage"] else code(answer)

    allowed = asked()
    assert allowed != "denied", "there is no such container, and the policy has no say in that"
    daemon.kill_daemon()
    bridge = daemon.connect()
    assert asked() == allowed
    assert policyd(daemon) == [first]
    os.kill(first, signal.SIGKILL)
    assert asked() == "denied"
    assert asked() == allowed
    (second,) = policyd(daemon)
    assert second != first
    bridge.close()
    assert daemon.stop() == 0
    assert not is_running(second)
    assert not (daemon.run_dir / "services").exists()
