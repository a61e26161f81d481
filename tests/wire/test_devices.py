"""Requests for devices that are not there, or of a kind that their type does not know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.daemon import Daemon, running
from support.host import MODIFY, NULL_ID, ZERO_GUID, Connection, code
from support.leaks import Snapshot, assert_nothing_left
from support.matrix import row

#: What a machine without such devices is asked for; "PATH" becomes one that nobody uses.
ABSENT: dict[str, dict[str, Any]] = {
    "MappedVirtualDisk": {"MountPath": "PATH", "Lun": 63},
    "VPMemDevice": {"MountPath": "PATH", "DeviceNumber": 9999},
    "MappedDirectory": {"MountPath": "PATH", "Port": 9999},
    "CombinedLayers": {"ContainerRootPath": "PATH/rootfs", "Layers": [{"Path": "/no/a"}, {"Path": "/no/b"}]},
    "VPCIDevice": {"VMBusGUID": "ffff:00:00.0"},
}
VERBS = {
    "SCSIDevice": ["Add", "PreAdd", "Update"],
    "MappedVirtualDisk": ["PreAdd", "Update", "add"],
    "VPMemDevice": ["PreAdd", "Update"],
    "MappedDirectory": ["PreAdd", "Update"],
    "CombinedLayers": ["PreAdd", "Update"],
    "VPCIDevice": ["Remove", "PreAdd", "Update"],
}


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that waits a moment for devices."""
    config = tmp_path_factory.mktemp("config") / "uvmd.toml"
    waits = ("storage_scsi", "storage_pmem", "vpci")
    config.write_text("".join(f"[plugin.{name}]\ndevice_timeout_s = 0.1\n" for name in waits))
    with running(options={"config": str(config)}) as started:
        yield started


@pytest.fixture(scope="module")
def bridge(impatient: Daemon) -> Iterator[Connection]:
    connection = impatient.connect()
    yield connection
    connection.close()


def ask(bridge: Connection, resource: str, request: str, settings: Any) -> tuple[str, str]:
    inner = {"RequestType": request, "ResourceType": resource, "Settings": settings}
    fields = {"ContainerId": NULL_ID, "ActivityId": ZERO_GUID, "Request": inner}
    answer = bridge.ask(MODIFY, fields)
    return code(answer), answer.get("ErrorMessage", "")


def settings_of(daemon: Daemon, resource: str) -> dict[str, Any]:
    path = str(daemon.bundles / "c" / "m0")
    found = ABSENT.get(resource, {})
    return {
        key: value.replace("PATH", path) if isinstance(value, str) else value for key, value in found.items()
    }


@row("modify.device-failure")
@pytest.mark.parametrize("resource", ABSENT)
def test_a_device_that_is_not_there_is_an_error_and_leaves_nothing(
    impatient: Daemon, bridge: Connection, resource: str
) -> None:
    settings = settings_of(impatient, resource)
    ask(bridge, resource, "Add", settings)  # the first brings its code in
    before, folders = Snapshot.take(impatient), sorted(map(str, impatient.bundles.rglob("*")))
    result, text = ask(bridge, resource, "Add", settings)
    assert result == "E_FAIL"
    assert text
    assert sorted(map(str, impatient.bundles.rglob("*"))) == folders
    assert_nothing_left(impatient, before)


@row("modify.request-type")
@pytest.mark.parametrize(
    ("resource", "request_type"), [(name, verb) for name in VERBS for verb in VERBS[name]]
)
def test_a_request_type_that_a_device_does_not_know_is_refused(
    impatient: Daemon, bridge: Connection, resource: str, request_type: str
) -> None:
    result, text = ask(bridge, resource, request_type, settings_of(impatient, resource))
    assert result == "E_FAIL"
    assert f'the RequestType "{request_type}" is not supported' in text


def test_a_disk_that_is_gone_may_be_let_go(bridge: Connection) -> None:
    assert ask(bridge, "SCSIDevice", "Remove", {"Lun": 63})[0] == "S_OK"
