"""Every enforcement point that the daemon can be brought to here, and every way to say no at it.

What needs a disk to be asked at all (mount_device, rw_mount_device, mount_blockdev) is asked in
the guest tests; their removals need none.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import specs
from support.containers import Container, new_id
from support.daemon import Daemon, wait_until
from support.host import (
    CREATE,
    DUMP_STACKS,
    EXECUTE,
    GET_PROPERTIES,
    MODIFY,
    NULL_ID,
    SHUTDOWN_FORCED,
    SHUTDOWN_GRACEFUL,
    SIGNAL,
    ZERO_GUID,
    Connection,
    code,
)
from support.leaks import Snapshot, assert_nothing_left
from support.matrix import row
from support.strict import strict_container, strict_root, strict_vm

SECRET = "s3cret"
HOST_NETWORK = "io.microsoft.virtualmachine.lcow.hostnetwork"
TRUST_LIST = "application/vnd.transparency-trust-list.v1+cose"

#: What an enforcer may do instead of answering yes, and what a host is then told.
NOES: dict[str, tuple[dict[str, Any], str]] = {
    "denial": ({"allowed": False, "reason": "because of this"}, "because of this"),
    "denial without a reason": ({"allowed": False}, "denied by policy"),
    "exception": ({"raises": "ValueError"}, "the policy could not be evaluated: ValueError"),
    "panic": ({"raises": "BaseException"}, "the policy could not be evaluated: BaseException"),
    "no memory": ({"raises": "MemoryError"}, "the policy could not be evaluated: MemoryError"),
    "time-out": ({"raises": "TimeoutError"}, "the policy did not answer in time"),
    "no answer": ({"answers": None}, "the policy answered with NoneType, not a decision"),
    "an object": ({"answers": {"allowed": True}}, "the policy answered with dict, not a decision"),
    "a bare yes": ({"answers": True}, "the policy answered with bool, not a decision"),
    "allowed is 1": ({"allowed": 1}, "the policy's allowed is int, not a boolean"),
    "allowed is text": ({"allowed": "true"}, "the policy's allowed is str, not a boolean"),
    "odd stdio": ({"stdio": "yes"}, "the policy's stdio access is str, not a boolean"),
    "odd extra": ({"extra": []}, "the policy's further answers are list, not an object"),
    "odd environment": ({"env": "PATH=/bin"}, "the policy's environment is str, not a list"),
    "odd capabilities": ({"capabilities": []}, "the policy's capabilities are list, not an object"),
}
Ask = Callable[[Connection], dict[str, Any]]


def body(container_id: str, **fields: object) -> dict[str, object]:
    return {"ContainerId": container_id, "ActivityId": ZERO_GUID, **fields}


def modify(type_: str, request: str, **settings: object) -> Ask:
    inner = {"RequestType": request, "ResourceType": type_, "Settings": settings}
    return lambda bridge: bridge.ask(MODIFY, body(NULL_ID, Request=inner))


def external(bridge: Connection) -> dict[str, Any]:
    parameters = json.dumps({"CommandArgs": ["true"], "Environment": {"SECRET": SECRET}})
    return bridge.ask(EXECUTE, body(NULL_ID, Settings={"ProcessParameters": parameters}))


ID = new_id()
BUNDLE = f"/run/gcs/c/{ID}"
DISK = {"Lun": 7, "Controller": 0}
#: Point -> (what stands before the reason, the request that asks it).
OF_THE_VM: dict[str, tuple[str, Ask]] = {
    "unmount_device": (
        "unmounting scsi device at /run/mounts/scsi/m1 denied by policy: ",
        modify("MappedVirtualDisk", "Remove", MountPath="/run/mounts/scsi/m1", ReadOnly=True, **DISK),
    ),
    "rw_unmount_device": (
        f"unmounting scsi device at {BUNDLE} denied by policy: ",
        modify("MappedVirtualDisk", "Remove", MountPath=BUNDLE, **DISK),
    ),
    "unmount_blockdev": (
        "removing blockdev symlink at /run/mounts/b (-> scsi controller 0 lun 7) denied by policy: ",
        modify("MappedVirtualDisk", "Remove", MountPath="/run/mounts/b", BlockDev=True, **DISK),
    ),
    "scratch_mount": (
        "scratch mounting denied by policy: ",
        modify(
            "CombinedLayers",
            "Add",
            ContainerID=ID,
            ContainerRootPath=f"{BUNDLE}/rootfs",
            Layers=[{"Path": "/run/mounts/scsi/m1"}],
            ScratchPath=f"{BUNDLE}/scratch/{ID}",
        ),
    ),
    "mount_overlay": (
        "overlay creation denied by policy: ",
        modify(
            "CombinedLayers",
            "Add",
            ContainerID=ID,
            ContainerRootPath=f"{BUNDLE}/rootfs",
            Layers=[{"Path": f"/run/mounts/scsi/m{n}"} for n in (1, 0)],
        ),
    ),
    "unmount_overlay": (
        "overlay removal denied by policy: ",
        modify("CombinedLayers", "Remove", ContainerRootPath=f"{BUNDLE}/rootfs"),
    ),
    "plan9_mount": (
        f"mounting plan9 device at {BUNDLE}/mounts/m1 denied by policy: ",
        modify("MappedDirectory", "Add", MountPath=f"{BUNDLE}/mounts/m1", Port=5000, ShareName="1"),
    ),
    "plan9_unmount": (
        f"unmounting plan9 device at {BUNDLE}/mounts/m1 denied by policy: ",
        modify("MappedDirectory", "Remove", MountPath=f"{BUNDLE}/mounts/m1", Port=5000, ShareName="1"),
    ),
    "modify_resource": (
        "example.com/Ramdisk denied by policy: ",
        modify("example.com/Ramdisk", "Add", MountPath="/run/mounts/ramdisk", SizeMiB=1),
    ),
    "get_properties": (
        "get properties denied due to policy: ",
        lambda bridge: bridge.ask(GET_PROPERTIES, body(ID)),
    ),
    "dump_stacks": (
        "dump stacks denied due to policy: ",
        lambda bridge: bridge.ask(DUMP_STACKS, body(NULL_ID)),
    ),
    "exec_external": ("exec is denied due to policy: ", external),
}


@row("modify.denied")
@pytest.mark.parametrize("how", NOES)
def test_what_is_no_yes_is_a_no_with_a_reason_and_changes_nothing(how: str) -> None:
    no, reason = NOES[how]
    points = [*OF_THE_VM, "create_container"]
    with strict_vm("crun", dict.fromkeys(points, no)) as (daemon, bridge):
        bridge.ask(GET_PROPERTIES, body(ID))  # the first of its kind imports what it needs
        before = Snapshot.take(daemon)
        for point, (refusal, ask) in OF_THE_VM.items():
            answer = ask(bridge)
            assert (point, code(answer)) == (point, "E_FAIL")
            assert f"{refusal}{reason}" in answer["ErrorMessage"]
            assert SECRET not in json.dumps(answer)
        assert not Path("/run/mounts/ramdisk").exists()
        create_is_denied(bridge, f"container creation denied due to policy: {reason}")
        assert not Path(BUNDLE).exists()
        assert bridge.ask(GET_PROPERTIES, body(ID))["Result"], "and the daemon goes on"
        assert_nothing_left(daemon, before)


def create_is_denied(bridge: Connection, text: str, **of_spec: Any) -> None:
    container_id = new_id()
    with strict_root(container_id) as root:
        config = bridge.host.container_config(
            container_id,
            specs.container("/bin/true", root=root, env=("PATH=/bin", f"SECRET={SECRET}"), **of_spec),
            OciBundlePath=str(root.parent),
            ScratchDirPath=str(root.parent / "scratch" / container_id),
        )
        answer = bridge.ask(CREATE, body(container_id, ContainerConfig=config))
        assert code(answer) == "E_FAIL"
        assert text in answer["ErrorMessage"]
        assert SECRET not in json.dumps(answer)
        assert [child.name for child in root.parent.iterdir()] == ["rootfs"], "nothing was written"
        # Denied before it became anything: it is not known.
        assert code(bridge.ask(EXECUTE, body(container_id, Settings={}))) != "S_OK"


IN_A_CONTAINER = ("exec_in_container", "signal_container_process", "shutdown_container", "host_network")


@row("shutdown.denied")
@pytest.mark.parametrize("how", ["denial", "exception", "panic", "time-out", "an object", "allowed is 1"])
def test_a_running_container_is_not_touched_without_a_yes(how: str) -> None:
    no, reason = NOES[how]
    with strict_vm("crun", dict.fromkeys(IN_A_CONTAINER, no)) as (daemon, bridge):
        create_is_denied(bridge, reason, annotations={HOST_NETWORK: "true"})
        with strict_container(bridge, "/bin/sleep", "60") as container:
            init = container.init()
            for refusal, answer in (
                ("exec in container denied due to policy: ", exec_in(bridge, container)),
                ("", bridge.ask(SIGNAL, body(container.id, ProcessId=init.pid, Options={"Signal": 9}))),
                ("", bridge.ask(SHUTDOWN_GRACEFUL, body(container.id))),
                ("", bridge.ask(SHUTDOWN_FORCED, body(container.id))),
            ):
                assert code(answer) == "E_FAIL"
                assert f"{refusal}{reason}" in answer["ErrorMessage"]
            pids = bridge.properties(container.id, "ProcessList")["ProcessList"]
            assert [entry["ProcessId"] for entry in pids] == [init.pid]
            end(daemon, init.pid)


def exec_in(bridge: Connection, container: Container) -> dict[str, Any]:
    process = {**specs.container("/bin/true")["process"], "env": [f"SECRET={SECRET}"]}
    parameters = json.dumps({"OCIProcess": process})
    return bridge.ask(EXECUTE, body(container.id, Settings={"ProcessParameters": parameters}))


def end(daemon: Daemon, pid: int) -> None:
    """Not through the policy, which says no: as the kernel would."""
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("how", ["denial", "exception", "panic", "time-out"])
def test_a_fragment_or_a_trust_list_without_a_yes_is_refused(how: str) -> None:
    no, reason = NOES[how]
    reason = {"exception": "ValueError", "panic": "BaseException"}.get(how, reason)
    points = {"load_fragment": no, "load_transparency_trust_list": no}
    with strict_vm("crun", points) as (_, bridge):
        for media_type, refusal in (
            ("application/cose-x509+rego", "error loading security policy fragment: "),
            (TRUST_LIST, "error loading transparency trust list: "),
        ):
            ask = modify("SecurityPolicyFragment", "Add", Fragment="aGVsbG8=", MediaType=media_type)
            answer = ask(bridge)
            assert code(answer) == "E_FAIL"
            assert f"{refusal}{reason}" in answer["ErrorMessage"]
            assert SECRET not in json.dumps(answer)


@pytest.mark.parametrize("how", ["denial", "exception", "time-out", "an object", "allowed is 1"])
def test_logs_are_silent_unless_the_policy_says_yes(how: str) -> None:
    no, _ = NOES[how]
    with strict_vm("crun", {"runtime_logging": no}) as (daemon, bridge):
        modify("CombinedLayers", "Remove", ContainerRootPath="/run/gcs/c/x/rootfs")(bridge)
        before = daemon.log_text()
        assert '"operation":"modify"' not in before, "from the moment that the policy is in force"
        bridge = reconnected(daemon, bridge)
        modify("CombinedLayers", "Remove", ContainerRootPath="/run/gcs/c/x/rootfs")(bridge)
        daemon.kill_daemon()
        fresh = daemon.connect()
        assert fresh.ask(GET_PROPERTIES, body(ID))["Result"], "answered by the next daemon"
        fresh.close()
        assert daemon.log_text() == before, "the monitor and the next daemon are as silent"


def test_logs_speak_when_the_policy_says_yes() -> None:
    with strict_vm("crun", {}) as (daemon, bridge):
        modify("CombinedLayers", "Remove", ContainerRootPath="/run/gcs/c/x/rootfs")(bridge)
        reconnected(daemon, bridge)
        wait_until(lambda: "the bridge is down" in daemon.log_text())
        assert '"operation":"modify"' in daemon.log_text()


def reconnected(daemon: Daemon, bridge: Connection) -> Connection:
    """The monitor has something to say of that."""
    bridge.close()
    return daemon.connect()
