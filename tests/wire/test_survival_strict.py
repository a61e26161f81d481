"""The daemon dies in a strict VM: what was counted is not asked again, and doubt closes the door."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from support import specs
from support.containers import new_id, shell
from support.holding import HoldingDaemon, holding
from support.host import CREATE, MODIFY, NULL_ID, ZERO_GUID, Connection, code
from support.strict import strict_root
from uvmd.api.testing import POLICY

RAMDISK = "example.com/Ramdisk"


@pytest.fixture
def vm() -> Iterator[HoldingDaemon]:
    with holding(runtime="crun", options={"paths-bundle-roots": "/run/gcs"}) as daemon:
        yield daemon


@pytest.fixture
def bridge(vm: HoldingDaemon) -> Iterator[Connection]:
    connection = vm.connect()
    settings = {"EnforcerType": "counting", "EncodedSecurityPolicy": POLICY}
    connection.modify(NULL_ID, "SecurityPolicy", settings=settings)
    yield connection
    connection.close()


def change(verb: str, **settings: Any) -> dict[str, Any]:
    inner = {"RequestType": verb, "ResourceType": RAMDISK, "Settings": settings}
    return {"ContainerId": NULL_ID, "ActivityId": ZERO_GUID, "Request": inner}


@pytest.mark.parametrize("place", ["create-decided", "create-made", "answer-create"])
def test_a_create_that_the_policy_has_counted_is_not_asked_again(
    vm: HoldingDaemon, bridge: Connection, place: str
) -> None:
    container_id = new_id()
    with strict_root(container_id) as root:
        spec = specs.container(*shell("exit 3"), root=root)
        places = {
            "OciBundlePath": str(root.parent),
            "ScratchDirPath": f"{root.parent}/scratch/{container_id}",
        }
        config = bridge.host.container_config(container_id, spec, **places)
        vm.hold(place)
        fields = {"ContainerId": container_id, "ActivityId": ZERO_GUID, "ContainerConfig": config}
        creating = bridge.send(CREATE, fields)
        vm.kill_at(place)
        answer = bridge.answer(creating)
        assert code(answer) == "S_OK", answer
        assert bridge.execute(container_id).wait() == 3
        bridge.wait_for_notification(container_id)
        subprocess.run(["umount", str(root)], check=True)
        bridge.delete(container_id)
        assert "counted before" in bridge.ask(CREATE, fields)["ErrorMessage"], "for another request it is"


@pytest.mark.parametrize("place", ["change-begun", "mounted", "change-committed", "answer-modify"])
def test_a_device_that_the_policy_has_counted_is_not_asked_again(
    vm: HoldingDaemon, bridge: Connection, place: str
) -> None:
    path = f"{vm.folder}/disk"
    vm.hold(place)
    adding = bridge.send(MODIFY, change("Add", MountPath=path, SizeMiB=1))
    vm.kill_at(place)
    answer = bridge.answer(adding)
    assert code(answer) == "S_OK", answer
    assert code(bridge.ask(MODIFY, change("Remove", MountPath=path))) == "S_OK"


def test_a_policy_whose_answer_was_missing_is_in_force_and_said_to_be(vm: HoldingDaemon) -> None:
    bridge = vm.connect()
    inner = {
        "RequestType": "Add",
        "ResourceType": "SecurityPolicy",
        "Settings": {"EnforcerType": "counting", "EncodedSecurityPolicy": POLICY},
    }
    vm.hold("answer-modify")
    setting = bridge.send(MODIFY, {"ContainerId": NULL_ID, "ActivityId": ZERO_GUID, "Request": inner})
    vm.kill_at("answer-modify")
    assert code(bridge.answer(setting)) == "S_OK"
    again = bridge.ask(MODIFY, {"ContainerId": NULL_ID, "ActivityId": ZERO_GUID, "Request": inner})
    assert code(again) == "E_FAIL", "once is enough"
    bridge.close()


def test_a_mount_that_is_gone_after_the_restart_closes_the_door(
    vm: HoldingDaemon, bridge: Connection
) -> None:
    path = f"{vm.folder}/disk"
    assert code(bridge.ask(MODIFY, change("Add", MountPath=path, SizeMiB=1))) == "S_OK"
    subprocess.run(["umount", path], check=True)
    vm.kill_daemon()
    answer = bridge.ask(MODIFY, change("Add", MountPath=f"{path}2", SizeMiB=1))
    assert code(answer) == "E_FAIL"
    assert f"nothing is mounted at {path}" in answer["ErrorMessage"]
