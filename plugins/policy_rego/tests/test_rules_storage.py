"""Disks, overlays, shared directories and scratch: what may be mounted where, and why not."""

from __future__ import annotations

import policies
import pytest
from policies import ID, OTHER, device, overlay
from sessions import allow, deny, mounted, opened, started

RW = {
    "target": f"/run/gcs/c/{ID}",
    "encrypted": True,
    "ensureFilesystem": True,
    "filesystem": "ext4",
    "mountPathRegex": "/run/gcs/c/[0-9a-fA-F]{64}",
}
PLAN9 = {
    "rootPrefix": "/run/gcs/c",
    "mountPathPrefix": "/mounts/m[0-9]+",
    "target": f"/run/gcs/c/{ID}/mounts/m1",
}


def test_a_layer_that_the_policy_names_is_mounted_once_and_again_after_its_unmount() -> None:
    session = opened()
    allow(session, "mount_device", device("base", 0))
    assert deny(session, "mount_device", device("base", 0)) == ["device already mounted at path"]
    allow(session, "unmount_device", {"unmountTarget": "/run/mounts/scsi/m0"})
    allow(session, "mount_device", device("top", 0))


def test_an_unknown_layer_at_an_odd_place_is_denied_with_both_reasons() -> None:
    input = {**device("other", 0), "target": "/run/mounts/scsi/m0/../../etc"}
    assert deny(opened(), "mount_device", input) == ["deviceHash not found", "mountpoint invalid"]


def test_a_line_break_after_a_target_is_not_a_target() -> None:
    input = {**device("base", 0), "target": "/run/mounts/scsi/m0\n"}
    assert deny(opened(), "mount_device", input) == ["mountpoint invalid"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"encrypted": False}, "unencrypted scratch not allowed, non-readonly mount request for SCSI disk"),
        ({"ensureFilesystem": False}, "ensureFilesystem must be set on rw device mounts"),
        ({"filesystem": "nfs"}, "rw device mounts uses a filesystem that is not allowed"),
        ({"target": "/etc"}, "mountpoint invalid"),
    ],
)
def test_a_writable_disk_is_denied_for_one_reason(changes: dict[str, object], reason: str) -> None:
    session = opened()
    [said] = deny(session, "rw_mount_device", {**RW, **changes})
    assert said.startswith(reason)
    allow(session, "rw_mount_device", RW)
    assert deny(session, "rw_mount_device", RW) == ["device already mounted at path"]


def test_disks_are_unmounted_as_what_they_were_mounted() -> None:
    session = opened()
    allow(session, "mount_device", device("base", 0))
    allow(session, "rw_mount_device", RW)
    read_only, writable = {"unmountTarget": "/run/mounts/scsi/m0"}, {"unmountTarget": RW["target"]}
    assert deny(session, "unmount_device", {"unmountTarget": "/x"}) == ["no device at path to unmount"]
    assert deny(session, "rw_unmount_device", {"unmountTarget": "/x"}) == ["no device at path to unmount"]
    [said] = deny(session, "unmount_device", writable)
    assert said == "received read-only unmount request, but device provided is read-write"
    [said] = deny(session, "rw_unmount_device", read_only)
    assert said == "received read-write unmount request, but device provided is read-only"
    allow(session, "unmount_device", read_only)
    allow(session, "rw_unmount_device", writable)


def test_block_devices_are_nobodys() -> None:
    for point in ("mount_blockdev", "unmount_blockdev"):
        input = {"target": "/dev/x", "unmountTarget": "/dev/x"}
        assert deny(opened(), point, input) == ["blockdev mounts are not supported"]


def test_an_overlay_needs_its_layers_in_their_order_and_is_the_containers_only_one() -> None:
    session = opened()
    allow(session, "mount_device", device("base", 0))
    allow(session, "mount_device", device("top", 1))
    for wrong in (overlay(0, 1), overlay(1), overlay(1, 0, 0), overlay(1, 7)):
        assert deny(session, "mount_overlay", wrong) == ["no matching containers for overlay"]
    allow(session, "mount_overlay", overlay(1, 0))
    assert deny(session, "mount_overlay", overlay(1, 0)) == ["overlay has already been mounted"]
    allow(session, "mount_overlay", overlay(1, 0, id=OTHER))
    allow(session, "unmount_overlay", {"unmountTarget": f"/run/gcs/c/{ID}/rootfs"})
    gone = deny(session, "unmount_overlay", {"unmountTarget": f"/run/gcs/c/{ID}/rootfs"})
    assert gone == ["no overlay at path to unmount"]


def test_a_shared_directory_belongs_to_the_container_in_whose_place_it_is() -> None:
    session = mounted()
    assert deny(session, "plan9_mount", {**PLAN9, "target": f"/run/gcs/c/{OTHER}/mounts/m1"}) == []
    allow(session, "plan9_mount", PLAN9)
    assert deny(session, "plan9_mount", PLAN9) == ["device already mounted at path"]
    allow(session, "plan9_unmount", {"unmountTarget": PLAN9["target"]})
    assert deny(session, "plan9_unmount", {"unmountTarget": PLAN9["target"]}) == [
        "no device at path to unmount"
    ]


def test_a_container_uses_the_shared_directory_that_is_its_own() -> None:
    share = {"destination": "/s", "source": "plan9://x", "type": "bind", "options": ["rbind"]}
    session = mounted(policies.policy(policies.container(mounts=[share])))
    mount = {**share, "source": PLAN9["target"]}
    assert deny(session, "create_container", policies.create(mounts=[mount])) == ["invalid mount list: /s"]
    allow(session, "plan9_mount", PLAN9)
    allow(session, "create_container", policies.create(mounts=[mount]))


@pytest.mark.parametrize("allowed", [False, True])
def test_scratch_is_encrypted_unless_the_policy_says_otherwise(allowed: bool) -> None:
    session = opened(policies.policy(allow_unencrypted_scratch=allowed))
    plain, encrypted = {"target": "/s1", "encrypted": False}, {"target": "/s2", "encrypted": True}
    if allowed:
        allow(session, "scratch_mount", plain)
    else:
        assert deny(session, "scratch_mount", plain) == ["unencrypted scratch not allowed"]
    allow(session, "scratch_mount", encrypted)
    assert deny(session, "scratch_mount", encrypted) == ["scratch already mounted at path"]
    allow(session, "scratch_unmount", {"unmountTarget": "/s2"})
    assert deny(session, "scratch_unmount", {"unmountTarget": "/s2"}) == ["no scratch at path to unmount"]


@pytest.mark.parametrize(
    ("point", "flag"),
    [
        ("get_properties", "allow_properties_access"),
        ("dump_stacks", "allow_dump_stacks"),
        ("runtime_logging", "allow_runtime_logging"),
        ("host_network", "allow_host_network"),
    ],
)
def test_a_flag_decides_and_whatever_is_not_false_is_set(point: str, flag: str) -> None:
    assert deny(opened(), point, {}) == []
    assert deny(opened(policies.policy(**{flag: False})), point, {}) == []
    for value in (True, 0, "false"):
        allow(opened(policies.policy(**{flag: value})), point, {})


def test_an_id_is_used_up_by_its_container() -> None:
    session = started()
    allow(session, "shutdown_container", {"containerID": ID})
    allow(session, "unmount_overlay", {"unmountTarget": f"/run/gcs/c/{ID}/rootfs"})
    allow(session, "mount_overlay", overlay(1, 0))
    assert deny(session, "create_container", policies.create()) == ["container already started"]


def test_what_a_transaction_mounted_is_not_there_after_its_rollback() -> None:
    session = opened()
    store = session.documents.store
    before, digest = store.snapshot(), store.digest()
    allow(session, "mount_device", device("base", 0))
    assert store.digest() != digest
    store.restore(before)
    assert store.digest() == digest
    allow(session, "mount_device", device("base", 0))
