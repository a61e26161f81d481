"""A strict VM whose guest is no longer what was recorded takes no changes, and goes on serving."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support import rootfs, specs
from support.containers import Container, new_id
from support.host import (
    CREATE,
    DELETE,
    DUMP_STACKS,
    GET_PROPERTIES,
    MODIFY,
    NULL_ID,
    SHUTDOWN_FORCED,
    ZERO_GUID,
    Connection,
    code,
)
from support.matrix import row
from support.strict import strict_vm

OVER = "mount, unmount, container creation and deletion have been disabled in this UVM due to a previous"


def body(container_id: str, **fields: object) -> dict[str, object]:
    return {"ContainerId": container_id, "ActivityId": ZERO_GUID, **fields}


class Layered:
    """A container's places on a disk of its own, as a host of confidential VMs lays them out."""

    def __init__(self, bridge: Connection) -> None:
        self.bridge = bridge
        self.id = new_id()
        self.bundle = Path("/run/gcs/c") / self.id
        self.root, self.scratch = self.bundle / "rootfs", self.bundle / "scratch" / self.id
        self.bundle.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(self.bundle)], check=True)
        self.extra = self.bundle / "layer"
        self.extra.mkdir()

    def overlay(self, request: str) -> dict[str, Any]:
        settings: dict[str, Any] = {"ContainerRootPath": str(self.root)}
        if request == "Add":
            layers = [{"Path": str(self.extra)}, {"Path": str(rootfs.shared())}]
            settings |= {"ContainerID": self.id, "Layers": layers, "ScratchPath": str(self.scratch)}
        inner = {"RequestType": request, "ResourceType": "CombinedLayers", "Settings": settings}
        return self.bridge.ask(MODIFY, body(NULL_ID, Request=inner))

    def create(self, *args: str) -> dict[str, Any]:
        config = self.bridge.host.container_config(
            self.id,
            specs.container(*args, root=self.root),
            OciBundlePath=str(self.bundle),
            ScratchDirPath=str(self.scratch),
        )
        return self.bridge.ask(CREATE, body(self.id, ContainerConfig=config))

    def delete(self) -> dict[str, Any]:
        return self.bridge.ask(DELETE, body(self.id))


@contextlib.contextmanager
def layered(bridge: Connection) -> Iterator[Layered]:
    one = Layered(bridge)
    try:
        yield one
    finally:
        for place in (one.root, one.bundle):
            subprocess.run(["umount", "-R", "-l", str(place)], check=False, stderr=subprocess.DEVNULL)
        with contextlib.suppress(OSError):
            one.bundle.rmdir()


@row("delete.overlay-mounted")
def test_a_container_is_not_deleted_below_its_overlay(runtime: str) -> None:
    with strict_vm(runtime, {}) as (_, bridge), layered(bridge) as one:
        assert code(one.overlay("Add")) == "S_OK"
        assert code(one.create("/bin/true")) == "S_OK"
        container = Container(bridge, one.id)
        container.init().wait()
        bridge.wait_for_notification(one.id)
        answer = one.delete()
        assert code(answer) == "E_FAIL"
        assert "a container with a overlay mount still active" in answer["ErrorMessage"]
        assert code(one.overlay("Remove")) == "S_OK"


@row("create.inconsistent", "modify.inconsistent", "delete.inconsistent")
def test_after_an_unmount_that_failed_nothing_is_changed_any_more(runtime: str) -> None:
    with strict_vm(runtime, {}) as (daemon, bridge), contextlib.ExitStack() as stack:
        broken, other, runs = (stack.enter_context(layered(bridge)) for _ in range(3))
        for one in (broken, other, runs):
            answer = one.overlay("Add")
            assert code(answer) == "S_OK", answer
        assert code(runs.create("/bin/sleep", "60")) == "S_OK"
        container = Container(bridge, runs.id)
        init = container.init()
        held = os.open(broken.root / "bin", os.O_RDONLY)
        try:
            answer = broken.overlay("Remove")
            assert code(answer) == "E_FAIL"
            assert OVER not in answer["ErrorMessage"], "the first answer says what went wrong"
        finally:
            os.close(held)
        refused = [broken.overlay("Remove"), other.create("/bin/true"), runs.delete()]
        assert [code(answer) for answer in refused] == ["E_FAIL"] * len(refused)
        assert all(OVER in answer["ErrorMessage"] for answer in refused)
        # What runs, runs on; and a new daemon remembers.
        assert container.exec("/bin/true").wait() == 0
        daemon.kill_daemon()
        fresh = daemon.connect()
        other.bridge = fresh
        assert OVER in other.overlay("Remove")["ErrorMessage"]
        assert fresh.properties(runs.id, "ProcessList")["ProcessList"][0]["ProcessId"] == init.pid
        os.kill(init.pid, signal.SIGKILL)
        fresh.close()


def test_a_denial_and_a_refusal_before_the_unmount_do_not_latch(runtime: str) -> None:
    script = {"unmount_overlay": {"allowed": False, "reason": "not now"}}
    with strict_vm(runtime, script) as (_, bridge), layered(bridge) as one:
        assert code(one.overlay("Add")) == "S_OK"
        assert "not now" in one.overlay("Remove")["ErrorMessage"]
        assert code(one.overlay("Add")) == "E_FAIL", "it is there already"
        assert code(one.create("/bin/true")) == "S_OK"


def test_metadata_that_cannot_be_put_back_close_the_door_and_what_runs_is_served(runtime: str) -> None:
    no = {"allowed": False, "reason": "no"}
    script = {"unmount_overlay": no, "restore": {"raises": "OSError"}}
    cause = "policy metadata could not be put back: OSError"
    with strict_vm(runtime, script) as (daemon, bridge), layered(bridge) as one, layered(bridge) as other:
        for place in (one, other):
            assert code(place.overlay("Add")) == "S_OK"
        assert code(one.create("/bin/sh", "-c", "read line; exit 7")) == "S_OK"
        init = Container(bridge, one.id).init(stdin=True)
        denied = other.overlay("Remove")["ErrorMessage"]
        assert denied == "overlay removal denied by policy: no", "the answer is the denial's"
        # From now on every question is answered with the cause.
        for type_, fields in ((GET_PROPERTIES, {}), (DUMP_STACKS, {}), (SHUTDOWN_FORCED, {})):
            assert cause in bridge.ask(type_, body(one.id, **fields))["ErrorMessage"]
        settings = {"EnforcerType": "open_door", "EncodedSecurityPolicy": ""}
        inner = {"RequestType": "Add", "ResourceType": "SecurityPolicy", "Settings": settings}
        answer = bridge.ask(MODIFY, body(NULL_ID, Request=inner))
        assert cause in answer["ErrorMessage"]
        # The container runs on, its streams and its end are served.
        init.stdin.write(b"go\n")
        assert init.wait() == 7
        bridge.wait_for_notification(one.id)
        daemon.kill_daemon()
        fresh = daemon.connect()
        assert cause in fresh.ask(DUMP_STACKS, body(NULL_ID))["ErrorMessage"], "a new daemon remembers"
        fresh.close()
