"""Pods and what goes wrong around them: a daemon or a runtime that dies, a policy, the network's requests."""

from __future__ import annotations

import base64
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support import machine, rootfs
from support.containers import Container, new_id, shell
from support.daemon import Daemon, running
from support.host import CREATE, MODIFY, NULL_ID, ZERO_GUID, Connection, Refused, code
from support.leaks import Snapshot, assert_nothing_left
from support.matrix import row
from support.pods import bind, pod, sandbox_spec, start_sandbox, workload_spec
from uvmd.api.testing import POLICY
from wire.test_strict import strict_vm

HOST_NETWORK = "io.microsoft.virtualmachine.lcow.hostnetwork"


def body(container_id: str, **fields: Any) -> dict[str, Any]:
    return {"ContainerId": container_id, "ActivityId": ZERO_GUID, **fields}


def without_descriptors(before: Snapshot, daemon: Daemon) -> list[str]:
    """Differences but for the daemon's own descriptors: it is another process now."""
    lines = before.differences(Snapshot.take(daemon))
    return [line for line in lines if not line.startswith("daemon_descriptors")]


# Something dies


@pytest.mark.parametrize("kind", ["sandbox", "workload"])
@pytest.mark.parametrize("delay_s", [0.0, 0.004, 0.01, 0.02, 0.04])
def test_a_daemon_killed_in_the_middle_of_a_create_makes_it_all_the_same(
    daemon: Daemon, bridge: Connection, kind: str, delay_s: float
) -> None:
    with pod(bridge) as warm:
        warm.run("true")
    before = Snapshot.take(daemon)
    made = start_sandbox(bridge) if kind == "workload" else None
    container_id = new_id()
    spec = (
        sandbox_spec(container_id)
        if made is None
        else workload_spec(made.id, "/bin/sleep", "60", mounts=[bind("/mnt", "sandbox:///a/b")])
    )
    config = bridge.host.container_config(container_id, spec)
    creating = bridge.send(CREATE, body(container_id, ContainerConfig=config))
    time.sleep(delay_s)
    daemon.kill_daemon()
    assert code(bridge.answer(creating)) == "S_OK"
    bridge.delete(container_id)
    if made is not None:
        made.close()
    deadline = time.monotonic() + 12
    while lines := without_descriptors(before, daemon):
        assert time.monotonic() < deadline, "\n".join(lines)
        time.sleep(0.05)


@pytest.fixture
def dying(runtime: str, tmp_path: Path) -> Iterator[tuple[Daemon, Path]]:
    """A daemon whose runtime is killed in a create while the flag file exists.

    After the seconds that it says; if it says none, once the runtime has created.
    """
    flag, program = tmp_path / "die", tmp_path / runtime
    real = machine.runtime_path(runtime)
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *" create "*) if [ -s {flag} ]; then\n'
        f'{real} "$@" & sleep $(cat {flag}); kill -9 $! 2>/dev/null; wait $!; kill -9 $$\n'
        f'elif [ -e {flag} ]; then {real} "$@"; kill -9 $$; fi ;; esac\n'
        f'exec {real} "$@"\n'
    )
    program.chmod(0o755)
    with running(runtime=str(program)) as daemon:
        yield daemon, flag


def test_a_runtime_killed_in_the_middle_of_a_create_leaves_no_half_container(
    dying: tuple[Daemon, Path],
) -> None:
    daemon, flag = dying
    bridge = daemon.connect()
    with pod(bridge) as warm:
        warm.run("true")
    before = Snapshot.take(daemon)
    pod_id, workload = new_id(), new_id()
    flag.touch()
    with pytest.raises(Refused) as caught:
        bridge.create(pod_id, sandbox_spec(pod_id))
    assert "signal 9" in caught.value.answer["ErrorMessage"]
    assert_nothing_left(daemon, before)
    flag.unlink()
    made = start_sandbox(bridge, pod_id=pod_id)  # the id is free
    flag.touch()
    spec = workload_spec(pod_id, "/bin/sleep", "60", mounts=[bind("/mnt", "sandbox:///a")])
    with pytest.raises(Refused):
        bridge.create(workload, spec)
    flag.unlink()
    bridge.create(workload, spec)
    made.workloads.append(Container(bridge, workload))
    made.close()
    assert_nothing_left(daemon, before)
    bridge.close()


@pytest.mark.parametrize("delay_s", [0.001, 0.004, 0.01, 0.03, 0.1])
def test_wherever_a_runtime_is_killed_nothing_is_left_and_the_id_is_free(
    dying: tuple[Daemon, Path], delay_s: float
) -> None:
    daemon, flag = dying
    bridge = daemon.connect()
    with pod(bridge) as warm:
        warm.run("true")
    before = Snapshot.take(daemon)
    pod_id, workload = new_id(), new_id()
    flag.write_text(str(delay_s))
    with pytest.raises(Refused):
        bridge.create(pod_id, sandbox_spec(pod_id))
    assert_nothing_left(daemon, before)
    flag.unlink()
    with pod(bridge, pod_id=pod_id) as made:
        flag.write_text(str(delay_s))
        with pytest.raises(Refused):
            bridge.create(workload, workload_spec(pod_id, "/bin/sleep", "60", sandbox_pid=made.sandbox.pid))
        flag.unlink()
        made.run("true")
    assert_nothing_left(daemon, before)
    bridge.close()


# A strict VM


@contextmanager
def layers(bridge: Connection, container_id: str) -> Iterator[tuple[Path, dict[str, str]]]:
    """The root of a strict VM's container, mounted by somebody else as the host's layers would be."""
    bundle = Path("/run/gcs/c") / container_id
    (bundle / "rootfs").mkdir(parents=True)
    # Writable, as an overlay is: the security context is put there.
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(bundle / "rootfs")], check=True)
    rootfs.build(bundle / "rootfs" / "made")
    for entry in (bundle / "rootfs" / "made").iterdir():
        entry.rename(bundle / "rootfs" / entry.name)
    places = {
        "OciBundlePath": str(bundle),
        "ScratchDirPath": str(bundle / "scratch" / container_id),
    }
    try:
        yield bundle / "rootfs", places
        subprocess.run(["umount", str(bundle / "rootfs")], check=True)
        bridge.delete(container_id)
    finally:
        subprocess.run(["umount", "-lq", str(bundle / "rootfs")], check=False)
        subprocess.run(["rm", "-rf", "--one-file-system", str(bundle)], check=False)


def test_a_strict_vm_runs_a_pod_and_shows_its_policy(runtime: str) -> None:
    with strict_vm(runtime, {"host_network": {"allowed": False, "reason": "not the VM's"}}) as (_, bridge):
        pod_id, workload = new_id(), new_id()
        with layers(bridge, pod_id) as (root, places):
            outside = sandbox_spec(pod_id, root=root, annotations={HOST_NETWORK: "true"})
            with pytest.raises(Refused, match="not the VM's"):
                bridge.create(pod_id, outside, **places)
            bridge.create(pod_id, sandbox_spec(pod_id, root=root, readonly=False), **places)
            with layers(bridge, workload) as (root, places):
                script = "cat $UVM_SECURITY_CONTEXT_DIR/security-policy-base64; cat /etc/hostname"
                bridge.create(
                    workload, workload_spec(pod_id, *shell(script), root=root, readonly=False), **places
                )
                init = Container(bridge, workload).init(stdout=True)
                assert init.wait() == 0
                assert init.stdout.read_all().decode() == f"{POLICY}pod-1\n"
                base64.b64decode(POLICY, validate=True)
                bridge.wait_for_notification(workload)
            with pytest.raises(Refused, match="invalid sandbox id"):
                bridge.create(new_id(), workload_spec("pod", "/bin/true"))


# Requests of the network's own


def network(bridge: Connection, target: str, request: str, settings: Any) -> str:
    inner = {"ResourceType": "Network", "RequestType": request}
    if settings is not None:
        inner["Settings"] = settings
    return code(bridge.ask(MODIFY, body(target, Request=inner)))


NOBODY = {"NamespaceID": "0c5bb8b5-6c32-4e6a-a1d5-8f5b7f1d9b55", "ID": "e2b0c7a2-0000-4000-8000-5bb8b56c324e"}


@row("modify.network-settings-missing", "modify.network-update", "modify.network-remove-unknown")
def test_requests_of_the_network_that_cannot_be(steady: Connection) -> None:
    assert network(steady, NULL_ID, "Add", None) == "INVALID_JSON"
    assert network(steady, NULL_ID, "Add", {"NamespaceID": 5}) == "INVALID_JSON"
    assert network(steady, NULL_ID, "Update", NOBODY) == "E_FAIL"
    assert network(steady, NULL_ID, "Remove", NOBODY) == "S_OK"


@row("modify.network-unknown-container")
def test_the_network_of_an_unknown_container_is_not_found(steady: Connection) -> None:
    assert network(steady, new_id(), "Add", NOBODY) == "SYSTEM_NOT_FOUND"
