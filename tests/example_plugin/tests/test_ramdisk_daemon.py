"""The example plugin in the real daemon, asked by a host over the bridge (root)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from support import containers
from support.daemon import Daemon, running, wait_until
from support.host import NULL_ID, Connection, Refused, code
from uvmd_example_ramdisk import plugin

pytestmark = [pytest.mark.root, pytest.mark.system]


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with running(options={"plugins-require": "ramdisk"}) as started:
        yield started


@pytest.fixture
def bridge(daemon: Daemon) -> Iterator[Connection]:
    connection = daemon.connect()
    yield connection
    connection.close()


def settings(daemon: Daemon) -> dict[str, object]:
    return {"MountPath": str(daemon.folder / "disk"), "SizeMiB": 1}


def test_a_host_adds_and_removes_a_device_that_core_does_not_know(daemon: Daemon, bridge: Connection) -> None:
    path = str(settings(daemon)["MountPath"])
    bridge.modify(NULL_ID, plugin.NAME, settings=settings(daemon))
    assert os.path.ismount(path)
    assert [row["target"] for row in bridge.properties(NULL_ID, "uvmd.mounts")["uvmd.mounts"]] == [path]
    bridge.modify(NULL_ID, plugin.NAME, "Remove", {"mountpath": path})
    assert not os.path.exists(path)


def test_a_host_is_told_the_field_and_the_reason(daemon: Daemon, bridge: Connection) -> None:
    with pytest.raises(Refused) as caught:
        bridge.modify(NULL_ID, plugin.NAME, settings={"MountPath": "/x", "SizeMiB": "much"})
    assert code(caught.value.answer) == "INVALID_JSON"
    assert "Settings.SizeMiB: should be an integer" in caught.value.answer["ErrorMessage"]
    assert "much" not in json.dumps(caught.value.answer)


def test_the_next_daemon_removes_what_a_killed_one_added(daemon: Daemon, bridge: Connection) -> None:
    path = str(settings(daemon)["MountPath"])
    bridge.modify(NULL_ID, plugin.NAME, settings=settings(daemon))
    daemon.kill_daemon()
    again = daemon.connect()
    again.modify(NULL_ID, plugin.NAME, "Remove", {"MountPath": path})
    assert not os.path.exists(path)
    again.close()


def test_a_closed_door_denies_the_device_before_anything_is_made() -> None:
    with running(options={"vm-stance": "deny"}) as daemon:
        bridge = daemon.connect()
        denied = r"example.com/Ramdisk denied by policy: changing resources is denied by policy"
        with pytest.raises(Refused, match=denied):
            bridge.modify(NULL_ID, plugin.NAME, settings=settings(daemon))
        assert not os.path.exists(str(settings(daemon)["MountPath"]))
        bridge.close()


def test_its_observer_hears_the_whole_life_of_a_container(daemon: Daemon, bridge: Connection) -> None:
    containers.run(bridge, "/bin/true")

    def heard() -> list[str]:
        return [line["event"] for line in daemon.log_lines() if line.get("msg") == "a container was observed"]

    wait_until(lambda: len(heard()) == 4, what="four events")
    assert set(heard()) == {"created", "started", "exited", "deleted"}
    assert heard()[0] == "created"
    assert heard()[-1] == "deleted"
