"""Layers and overlays: which container an id can still become (policy.md 9.12, 10)."""

from __future__ import annotations

import pytest
from policies import ID, OTHER, container, create, device, execute, overlay, policy
from sessions import allow, deny, opened

from uvmd_policy_rego.session import Session


def with_layers(text: str, *hashes: str) -> Session:
    session = opened(text)
    for number, hash in enumerate(hashes):
        allow(session, "mount_device", device(hash, number))
    return session


def test_repeated_layers_must_be_repeated() -> None:
    session = with_layers(policy(container(layers=["a", "a", "b"])), "a", "b")
    assert deny(session, "mount_overlay", overlay(1, 0)) == ["no matching containers for overlay"]
    allow(session, "mount_overlay", overlay(1, 0, 0))


def test_containers_share_layers_and_each_has_its_own_order() -> None:
    text = policy(container(layers=["a", "b"]), container(layers=["a", "c"], command=["other"]))
    session = with_layers(text, "a", "b", "c")
    allow(session, "mount_overlay", overlay(1, 0))
    allow(session, "mount_overlay", overlay(2, 0, id=OTHER))
    assert deny(session, "mount_overlay", overlay(0, 1, id="c" * 64)) == [
        "no matching containers for overlay"
    ]
    allow(session, "create_container", create())
    said = deny(session, "create_container", create(containerID=OTHER))
    assert said == ["invalid command"]


def test_all_containers_of_a_policy_can_run_at_once() -> None:
    described = [container(layers=[f"l{n}"], command=["run", str(n)]) for n in range(5)]
    session = with_layers(policy(*described), *(f"l{n}" for n in range(5)))
    for number in range(5):
        id = f"{number:064x}"
        allow(session, "mount_overlay", overlay(number, id=id))
        allow(session, "create_container", create(containerID=id, argList=["run", str(number)]))


def test_one_image_may_run_many_times() -> None:
    session = with_layers(policy(container(layers=["a"])), "a")
    for number in range(32):
        id = f"{number:064x}"
        allow(session, "mount_overlay", overlay(0, id=id))
        allow(session, "create_container", create(containerID=id))


def test_an_id_cannot_become_another_image() -> None:
    session = with_layers(policy(container(layers=["a"]), container(layers=["b"])), "a", "b")
    allow(session, "mount_overlay", overlay(0))
    assert deny(session, "mount_overlay", overlay(1)) == ["overlay has already been mounted"]
    allow(session, "unmount_overlay", {"unmountTarget": f"/run/gcs/c/{ID}/rootfs"})
    assert deny(session, "mount_overlay", overlay(1)) == ["overlay has already been mounted"]


def test_an_id_without_an_overlay_is_nobody() -> None:
    session = with_layers(policy(container(layers=["a"])), "a")
    said = deny(session, "create_container", create())
    assert "invalid command" in said
    answer = session.enforce("create_container", create())
    assert answer.decision["reason"]["error_objects"] is None


def test_a_layer_that_was_rolled_back_is_missed_by_name_until_it_is_mounted_again() -> None:
    session = with_layers(policy(), "base")
    before = session.documents.store.snapshot()
    allow(session, "mount_device", device("top", 1))
    session.documents.store.restore(before)
    answer = session.enforce("mount_overlay", overlay(1, 0))
    assert answer.decision["reason"]["errors"] == ["no matching containers for overlay"]
    assert answer.decision["input"]["layerPaths"] == ["/run/mounts/scsi/m1", "/run/mounts/scsi/m0"]
    allow(session, "mount_device", device("top", 1))
    allow(session, "mount_overlay", overlay(1, 0))


@pytest.mark.parametrize("id", [ID, OTHER])
def test_a_rolled_back_overlay_leaves_nothing_to_create_from(id: str) -> None:
    session = with_layers(policy(), "base", "top")
    before = session.documents.store.snapshot()
    scratch = {"target": f"/run/gcs/c/{id}/scratch/{id}", "encrypted": True}
    allow(session, "scratch_mount", scratch)
    allow(session, "mount_overlay", overlay(1, 0))
    session.documents.store.restore(before)
    deny(session, "create_container", create())
    allow(session, "scratch_mount", scratch)
    allow(session, "mount_overlay", overlay(1, 0, id=id))
    allow(session, "create_container", create(containerID=id))


def test_what_an_exec_or_a_signal_ruled_out_does_not_come_back() -> None:
    one = container(exec_processes=[{"command": ["one"], "signals": [1]}])
    two = container(exec_processes=[{"command": ["two"], "signals": [2]}])
    session = with_layers(policy(one, two), "base", "top")
    allow(session, "mount_overlay", overlay(1, 0))
    allow(session, "create_container", create())
    allow(session, "exec_in_container", execute(argList=["one"]))
    assert "invalid command" in deny(session, "exec_in_container", execute(argList=["two"]))
    signal = {"containerID": ID, "signal": 2, "isInitProcess": False, "argList": ["two"]}
    assert deny(session, "signal_container_process", signal) == ["target isn't allowed to receive the signal"]
    allow(session, "signal_container_process", {**signal, "signal": 1, "argList": ["one"]})


@pytest.mark.parametrize(
    "target",
    [
        "/run/mounts/scsi/m",
        "/run/mounts/scsi/m1x",
        "/run/mounts/scsi/m1/",
        "/run/mounts/scsi/m1/../../etc",
        "/run/mounts/pmem0",
        "",
        "x/run/mounts/scsi/m1",
    ],
)
def test_layers_go_where_layers_go(target: str) -> None:
    session = opened()
    said = deny(session, "mount_device", {**device("base", 0), "target": target})
    assert said == ["mountpoint invalid"]
    allow(session, "mount_device", device("base", 1))


@pytest.mark.parametrize("name", ["9p", "overlay", "nfs", "cifs", "", "EXT4"])
def test_writable_disks_have_a_filesystem_that_is_known(name: str) -> None:
    disk = {
        "target": f"/run/gcs/c/{ID}",
        "encrypted": True,
        "ensureFilesystem": True,
        "filesystem": name,
        "mountPathRegex": "/run/gcs/c/[0-9a-fA-F]{64}",
    }
    session = opened()
    assert deny(session, "rw_mount_device", disk) == [
        "rw device mounts uses a filesystem that is not allowed"
    ]
    allow(session, "rw_mount_device", {**disk, "filesystem": "xfs"})


@pytest.mark.parametrize(
    "target",
    [
        f"/run/gcs/c/{ID}/mounts/mx",
        f"/run/gcs/c/{ID}/mounts/m1/..",
        f"/run/gcs/c/{ID}/../x/mounts/m1",
        "/etc",
    ],
)
def test_shared_directories_go_where_they_go(target: str) -> None:
    session = with_layers(policy(), "base", "top")
    allow(session, "mount_overlay", overlay(1, 0))
    asked = {"rootPrefix": "/run/gcs/c", "mountPathPrefix": "/mounts/m[0-9]+", "target": target}
    assert deny(session, "plan9_mount", asked) == []
    allow(session, "plan9_mount", {**asked, "target": f"/run/gcs/c/{ID}/mounts/m1"})


def test_a_shared_directory_that_is_gone_is_nobodys() -> None:
    share = {"destination": "/s", "source": "plan9://", "type": "bind", "options": ["rbind"]}
    session = with_layers(policy(container(mounts=[share])), "base", "top")
    allow(session, "mount_overlay", overlay(1, 0))
    target = f"/run/gcs/c/{ID}/mounts/m1"
    asked = {"rootPrefix": "/run/gcs/c", "mountPathPrefix": "/mounts/m[0-9]+", "target": target}
    allow(session, "plan9_mount", asked)
    allow(session, "plan9_unmount", {"unmountTarget": target})
    mount = {**share, "source": target}
    assert deny(session, "create_container", create(mounts=[mount])) == ["invalid mount list: /s"]
    allow(session, "plan9_mount", asked)
    allow(session, "create_container", create(mounts=[mount]))


OPEN = 'package policy\napi_version := "0.12.0"\n'


def test_an_open_policy_allows_what_the_framework_never_does() -> None:
    points = ("mount_blockdev", "unmount_blockdev")
    text = OPEN + "".join(f'{point} := {{"allowed": true}}\n' for point in points)
    session = opened(text)
    allow(session, "mount_blockdev", {"target": "/run/mounts/blockdev/sda"})
    allow(session, "unmount_blockdev", {"unmountTarget": "/run/mounts/blockdev/sda"})
    assert deny(opened(), "mount_blockdev", {"target": "/x"}) == ["blockdev mounts are not supported"]
