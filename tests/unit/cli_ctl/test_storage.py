"""attach, layers, detach and mounts: what they send, and the table that they show."""

from __future__ import annotations

import json
from typing import Any

import pytest

from unit.cli_ctl.conftest import Invoke
from unit.client.fakes import FakeDaemon, refusal
from uvmd.bridge.identifiers import Message
from uvmd.cli.ctl.storage_detach import removal_of
from uvmd.cli.ctl.storage_mounts import render
from uvmd.client import ClientError

DISK = {
    "target": "/run/mounts/scsi/m1",
    "source": "/dev/sda1",
    "kind": "RO",
    "encrypted": False,
    "uses": [],
    "use_count": 1,
    "used_by": ["/run/gcs/c/web/rootfs"],
    "owner_container": "",
    "request": "MappedVirtualDisk",
    "record": {"v": 1, "controller": 0, "lun": 4, "partition": 1},
    "containers": [],
}
OVERLAY = {
    **DISK,
    "target": "/run/gcs/c/web/rootfs",
    "source": "/run/gcs/c/web/rootfs",
    "kind": "Overlay",
    "use_count": 0,
    "request": "CombinedLayers",
    "record": {"v": 1},
    "containers": ["web"],
}
BUNDLE = {
    **DISK,
    "target": "/run/gcs/c/web",
    "source": "/run/mounts/scsi/m2/scratch/web/bundle",
    "kind": "Bind",
    "owner_container": "web",
    "request": "",
    "record": {},
}


def serve(daemon: FakeDaemon, *rows: dict[str, Any]) -> None:
    daemon.answers[Message.GET_PROPERTIES] = lambda body: {
        "Properties": json.dumps({"uvmd.mounts": list(rows)})
    }


def requests(daemon: FakeDaemon) -> list[tuple[str, str, dict[str, Any]]]:
    """What was sent: request type, resource type, settings that are not zero."""
    sent = [body["Request"] for body in daemon.bodies(Message.MODIFY)]
    return [
        (one["RequestType"], one["ResourceType"], {k: v for k, v in one["Settings"].items() if v})
        for one in sent
    ]


@pytest.mark.parametrize(
    ("words", "resource_type", "wanted"),
    [
        (
            "attach scsi --read-only 0:1 /run/m1",
            "MappedVirtualDisk",
            {"MountPath": "/run/m1", "Lun": 1, "ReadOnly": True, "Options": ["ro"]},
        ),
        (
            "attach scsi --encrypted --format xfs 2:3 /run/m2",
            "MappedVirtualDisk",
            {
                "MountPath": "/run/m2",
                "Controller": 2,
                "Lun": 3,
                "Encrypted": True,
                "EnsureFilesystem": True,
                "Filesystem": "xfs",
            },
        ),
        (
            "attach scsi -p 1 --block-device 4 /run/dev/data",
            "MappedVirtualDisk",
            {"MountPath": "/run/dev/data", "Lun": 4, "Partition": 1, "BlockDev": True},
        ),
        (
            "attach scsi --filesystem ext4 --option rshared 5 /run/m5",
            "MappedVirtualDisk",
            {"MountPath": "/run/m5", "Lun": 5, "Filesystem": "ext4", "Options": ["rshared"]},
        ),
        ("attach pmem 0 /run/layers/p0", "VPMemDevice", {"MountPath": "/run/layers/p0"}),
        (
            "attach pmem --offset 0 --size 8192 3 /run/layers/p3",
            "VPMemDevice",
            {
                "DeviceNumber": 3,
                "MountPath": "/run/layers/p3",
                "MappingInfo": {"DeviceOffsetInBytes": 0, "DeviceSizeInBytes": 8192},
            },
        ),
        (
            "attach 9p --share 1 --ro /run/gcs/c/web/mounts/m0",
            "MappedDirectory",
            {"MountPath": "/run/gcs/c/web/mounts/m0", "Port": 564, "ShareName": "1", "ReadOnly": True},
        ),
        (
            "layers --scratch /run/m2/scratch/web /run/gcs/c/web/rootfs /run/m1 /run/m0",
            "CombinedLayers",
            {
                "ContainerID": "web",
                "ContainerRootPath": "/run/gcs/c/web/rootfs",
                "Layers": [{"Path": "/run/m1"}, {"Path": "/run/m0"}],
                "ScratchPath": "/run/m2/scratch/web",
            },
        ),
        (
            "layers --id other /run/gcs/c/web/rootfs /run/m1 /run/m0",
            "CombinedLayers",
            {
                "ContainerID": "other",
                "ContainerRootPath": "/run/gcs/c/web/rootfs",
                "Layers": [{"Path": "/run/m1"}, {"Path": "/run/m0"}],
            },
        ),
    ],
)
def test_a_verb_sends_the_request_of_its_type(
    invoke: Invoke, daemon: FakeDaemon, words: str, resource_type: str, wanted: dict[str, Any]
) -> None:
    result = invoke(*words.split())
    assert (result.exit_code, result.output) == (0, "")
    assert requests(daemon) == [("Add", resource_type, wanted)]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("attach scsi 0:1:2 /run/m", "is no LUN and no CONTROLLER:LUN"),
        ("attach scsi 300 /run/m", "both are numbers up to 255"),
        ("attach scsi --format xfs --filesystem ext4 1 /run/m", "name two types"),
        ("attach pmem --size 4096 0 /run/m", "--offset and --size go together"),
        ("attach 9p --port 0 /run/m", "--port"),
        ("layers /run/gcs/c/web/rootfs", "LAYER"),
        ("detach", "name a PATH"),
    ],
)
def test_wrong_usage_sends_nothing(invoke: Invoke, daemon: FakeDaemon, words: str, text: str) -> None:
    result = invoke(*words.split())
    assert result.exit_code == 2
    assert text in result.output
    assert requests(daemon) == []


def test_a_refusal_is_one_line_and_status_one(invoke: Invoke, daemon: FakeDaemon) -> None:
    daemon.answers[Message.MODIFY] = lambda _: refusal(0x80004005, "the disk did not come")
    result = invoke("attach", "scsi", "1", "/run/m")
    assert result.exit_code == 1
    assert "the disk did not come" in result.stderr


def test_detach_finds_out_how_and_takes_the_last_first(invoke: Invoke, daemon: FakeDaemon) -> None:
    share = {**DISK, "target": "/run/share", "request": "MappedDirectory", "kind": "RW"}
    serve(daemon, DISK, share, OVERLAY)
    result = invoke("detach", DISK["target"], "/run/share", OVERLAY["target"], "--scsi", "0:4")
    assert result.exit_code == 0
    assert requests(daemon) == [
        ("Remove", "CombinedLayers", {"ContainerRootPath": OVERLAY["target"]}),
        ("Remove", "MappedDirectory", {"MountPath": "/run/share"}),
        (
            "Remove",
            "MappedVirtualDisk",
            {"MountPath": DISK["target"], "Lun": 4, "Partition": 1, "ReadOnly": True},
        ),
        ("Remove", "SCSIDevice", {"Lun": 4}),
    ]


def test_detach_goes_on_after_a_failure_but_unplugs_nothing(invoke: Invoke, daemon: FakeDaemon) -> None:
    serve(daemon, DISK)
    result = invoke("detach", "--json", "--scsi", "4", DISK["target"], "/run/nothing")
    assert result.exit_code == 1
    assert "nothing that a request has mounted is at /run/nothing" in result.stderr
    assert json.loads(result.stdout) == {"detached": [DISK["target"]], "unplugged": False}
    assert [sent[1] for sent in requests(daemon)] == ["MappedVirtualDisk"]


def test_unplugging_alone_asks_for_no_table(invoke: Invoke, daemon: FakeDaemon) -> None:
    assert invoke("detach", "--scsi", "3:9").exit_code == 0
    assert requests(daemon) == [("Remove", "SCSIDevice", {"Controller": 3, "Lun": 9})]
    assert daemon.bodies(Message.GET_PROPERTIES) == []


@pytest.mark.parametrize(
    ("row", "removal"),
    [
        (
            {**DISK, "kind": "BlockDev"},
            {
                "MountPath": DISK["target"],
                "Controller": 0,
                "Lun": 4,
                "Partition": 1,
                "ReadOnly": False,
                "BlockDev": True,
            },
        ),
        (
            {**DISK, "request": "VPMemDevice", "source": "/dev/pmem2"},
            {"MountPath": DISK["target"], "DeviceNumber": 2},
        ),
        (
            {**DISK, "request": "VPMemDevice", "source": "/dev/mapper/dm-linear-pmem0-512-1024"},
            {
                "MountPath": DISK["target"],
                "DeviceNumber": 0,
                "MappingInfo": {"DeviceOffsetInBytes": 512, "DeviceSizeInBytes": 1024},
            },
        ),
    ],
)
def test_a_removal_repeats_what_the_add_had_said(row: dict[str, Any], removal: dict[str, Any]) -> None:
    assert removal_of(row) == (row["request"], removal)


def test_what_is_no_persistent_memory_is_not_guessed_at() -> None:
    with pytest.raises(ClientError, match="/dev/sda1 is not persistent memory"):
        removal_of({**DISK, "request": "VPMemDevice"})


@pytest.mark.parametrize("request_type", ["", "example.com/Ramdisk"])
def test_what_other_requests_have_mounted_is_left_to_them(request_type: str) -> None:
    with pytest.raises(ClientError, match="detach does not know how"):
        removal_of({**DISK, "request": request_type})


def test_the_table_shows_where_from_how_and_for_whom(invoke: Invoke, daemon: FakeDaemon) -> None:
    serve(daemon, DISK, BUNDLE, OVERLAY)
    lines = [line.split() for line in invoke("mounts").stdout.splitlines()]
    assert lines == [
        ["TARGET", "SOURCE", "KIND", "ENCRYPTED", "USES", "REQUEST", "CONTAINER"],
        [DISK["target"], "/dev/sda1", "RO", "no", "1", "MappedVirtualDisk", "-"],
        [BUNDLE["target"], BUNDLE["source"], "Bind", "no", "1", "-", "web"],
        [OVERLAY["target"], "-", "Overlay", "no", "0", "CombinedLayers", "web"],
    ]


def test_the_table_for_scripts_is_what_the_daemon_said(invoke: Invoke, daemon: FakeDaemon) -> None:
    serve(daemon, DISK, BUNDLE, OVERLAY)
    assert json.loads(invoke("mounts", "--json").stdout) == [DISK, BUNDLE, OVERLAY]


def test_a_table_that_was_cut_says_so(invoke: Invoke, daemon: FakeDaemon) -> None:
    serve(daemon, DISK, {"more": 12})
    result = invoke("mounts")
    assert len(result.stdout.splitlines()) == 2
    assert "and 12 more" in result.stderr


def test_an_empty_table_says_so() -> None:
    assert render([]) == "no mounts"
