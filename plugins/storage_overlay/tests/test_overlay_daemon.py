"""CombinedLayers in the real daemon: a container lives on an overlay, its bundle on the scratch (root)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import containers, rootfs, specs
from support.daemon import Daemon, running
from support.host import DELETE, NULL_ID, ZERO_GUID, Connection, Refused, code
from support.leaks import Snapshot, assert_nothing_left
from uvmd.linux import mounts

TYPE = "CombinedLayers"
pytestmark = [pytest.mark.root, pytest.mark.system]


class Pod:
    """One container's places in the daemon's folders: image below, scratch on a disk of its own."""

    def __init__(self, daemon: Daemon, bridge: Connection) -> None:
        self.daemon, self.bridge = daemon, bridge
        self.id = containers.new_id()
        self.bundle = daemon.host.bundle(self.id)
        self.root = self.bundle / "rootfs"
        self.extra = daemon.folder / "extra"
        (self.extra / "etc").mkdir(parents=True)
        (self.extra / "etc" / "layer").write_text("the upper one\n")
        self.disk = daemon.bundles / "disk"
        self.disk.mkdir()
        mounts.mount("tmpfs", str(self.disk), "tmpfs", 0, "size=64m")
        self.scratch = self.disk / "scratch" / self.id

    def settings(self) -> dict[str, Any]:
        return {
            "ContainerID": self.id,
            "ContainerRootPath": str(self.root),
            "Layers": [{"Path": str(self.extra)}, {"Path": str(rootfs.shared())}],
            "ScratchPath": str(self.scratch),
        }

    def add(self) -> None:
        self.bridge.modify(NULL_ID, TYPE, settings=self.settings())

    def remove(self, bridge: Connection | None = None) -> None:
        (bridge or self.bridge).modify(NULL_ID, TYPE, "Remove", {"ContainerRootPath": str(self.root)})

    def create(self, *args: str) -> None:
        spec = specs.container(*args, root=self.root, readonly=False)
        self.bridge.create(self.id, spec, ScratchDirPath=str(self.scratch))

    def finish(self) -> None:
        """Unmount the test's own disk: EBUSY if anything is left on it."""
        mounts.unmount(str(self.disk))
        self.disk.rmdir()


@pytest.fixture
def pod() -> Iterator[Pod]:
    with running(options={"plugins-require": "storage_overlay"}) as daemon:
        bridge = daemon.connect()
        pod = Pod(daemon, bridge)
        yield pod
        bridge.close()
        mounts.unmount_tree(str(daemon.folder), 2)


def table(bridge: Connection) -> dict[str, dict[str, Any]]:
    return {row["target"]: row for row in bridge.properties(NULL_ID, "uvmd.mounts")["uvmd.mounts"]}


def test_a_container_lives_on_layers_and_nothing_is_left_of_it(pod: Pod) -> None:
    bridge = pod.bridge
    pod.add()  # the first of its kind leaves the folder of bundles and the files of records
    pod.remove()
    shutil.rmtree(pod.disk / "scratch")
    pod.bundle.parent.mkdir(exist_ok=True)
    before = Snapshot.take(pod.daemon)
    pod.add()
    pod.create(*containers.shell("echo kept > /written; cat /etc/layer; exec sleep 60"))
    bridge.start(pod.id)
    init = bridge.execute(pod.id, stdout=True)
    init.stdout.read_until(b"the upper one\n")
    rows = table(bridge)
    assert (rows[str(pod.root)]["request"], rows[str(pod.root)]["containers"]) == (TYPE, [pod.id])
    assert rows[str(pod.bundle)]["owner_container"] == pod.id
    with pytest.raises(Refused, match=f'overlay "{pod.root}" is in use by a running container'):
        pod.remove()
    bridge.signal(pod.id, init.pid, 9)
    init.wait()
    bridge.wait_for_notification(pod.id)
    assert (pod.scratch / "upper" / "written").read_text() == "kept\n"
    assert (pod.scratch / "bundle" / "config.json").exists(), "the bundle lies on the scratch"
    pod.remove()
    assert table(bridge).keys() == {str(pod.bundle)}
    bridge.delete(pod.id)
    assert table(bridge) == {}
    assert list((pod.disk / "scratch").iterdir()) == []
    (pod.disk / "scratch").rmdir()
    assert_nothing_left(pod.daemon, before)
    pod.finish()


def test_a_created_container_keeps_its_overlay(pod: Pod) -> None:
    pod.add()
    pod.create("/bin/true")
    with pytest.raises(Refused, match="is in use by a created container"):
        pod.remove()
    assert code(pod.bridge.ask(DELETE, {"ContainerId": pod.id, "ActivityId": ZERO_GUID})) == "E_FAIL", (
        "the overlay is in the way of the bundle, and is said to be"
    )
    pod.remove()
    assert table(pod.bridge) == {}
    pod.finish()


def test_an_overlay_without_a_container_goes_with_all_it_had_but_what_was_written(pod: Pod) -> None:
    pod.add()
    pod.remove()
    assert table(pod.bridge) == {}
    assert not pod.bundle.exists()
    assert sorted(path.name for path in pod.scratch.iterdir()) == ["upper", "work"]
    pod.finish()


def test_a_killed_daemon_leaves_the_overlay_to_the_next(pod: Pod) -> None:
    pod.add()
    pod.create(*containers.shell("exec sleep 60"))
    pod.daemon.kill_daemon()
    again = pod.daemon.connect()
    assert (table(again).keys(), Path(pod.root, "etc", "layer").exists()) == (
        {str(pod.root), str(pod.bundle)},
        True,
    )
    container = containers.Container(again, pod.id)
    init = container.init()
    container.kill()
    init.wait()
    again.wait_for_notification(pod.id)
    pod.remove(again)
    again.delete(pod.id)
    assert table(again) == {}
    pod.finish()
    again.close()


def test_bad_settings_are_told_with_their_field(pod: Pod) -> None:
    for changes, result, text in (
        ({"Layers": [{"Path": 1}]}, "INVALID_JSON", "Settings.Layers[0].Path: should be a string"),
        ({"ContainerRootPath": ""}, "E_FAIL", "cannot have empty target"),
        ({"Layers": [{"Path": "/nowhere"}]}, "E_FAIL", "layer 1 of 1 /nowhere: no such file or directory"),
    ):
        with pytest.raises(Refused) as refused:
            pod.bridge.modify(NULL_ID, TYPE, settings={**pod.settings(), **changes})
        assert code(refused.value.answer) == result
        assert text in refused.value.answer["ErrorMessage"]
    assert json.dumps(table(pod.bridge)) == "{}"
    assert os.listdir(pod.disk) == []
    pod.finish()
