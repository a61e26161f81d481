"""Handlers in the guest, without the daemon around them: strict VMs, and every step made to fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guest.harness.guest import Guest
from support import disks

SOURCE = Path(__file__).parent / "inside" / "storage.py"
PATH = "/run/storm/mounts/m0"
LAYER = {"MountPath": PATH, "Lun": 1, "ReadOnly": True, "Options": ["ro"]}
SCRATCH = {"MountPath": PATH, "Lun": 2, "EnsureFilesystem": True, "Filesystem": "ext4"}
ENCRYPTED = {**SCRATCH, "Filesystem": "xfs", "Encrypted": True}


def _inside(source: str, name: str, arguments: list[Any]) -> Any:
    """Run one function of the file; runs in the guest."""
    import json

    namespace: dict[str, Any] = {"__name__": "inside_storage"}
    exec(compile(source, "inside/storage.py", "exec"), namespace)
    return json.loads(json.dumps(namespace[name](*arguments)))


def inside(guest: Guest, name: str, *arguments: Any, timeout_s: float = 120) -> Any:
    return guest.call(_inside, SOURCE.read_text(), name, list(arguments), fork=True, timeout_s=timeout_s)


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A layer, and its root digest."""
    path = tmp_path_factory.mktemp("layer") / "layer.img"
    data = disks.real_ext4(path)
    path.write_bytes(disks.layer(data))
    return path, disks.root_digest(data)


def test_a_strict_vm_asks_with_the_digest_and_reads_through_verity(
    guest: Guest, layer: tuple[Path, str]
) -> None:
    image, digest = layer
    drive = guest.add_disk(image, lun=1, read_only=True)
    seen = inside(guest, "strict_life", "MappedVirtualDisk", LAYER, f"{PATH}/file")
    assert seen["text"] == "in the layer"
    assert [point for point, _ in seen["asked"]] == ["mount_device", "unmount_device"]
    assert seen["asked"][0][1]["deviceHash"] == digest
    ((name, ((_, _, kind, params),)),) = seen["during"]["devices"].items()
    assert name.endswith(f"-lun1-p0-{digest}")
    assert (kind, digest in params) == ("verity", True)
    assert seen["clean"]
    drive.remove()


def test_a_strict_vm_mounts_persistent_memory_through_verity(
    guest: Guest, layer: tuple[Path, str], tmp_path: Path
) -> None:
    image, digest = layer
    # virtio-pmem wants whole pieces of 2 MiB.
    memory = tmp_path / "pmem.img"
    memory.write_bytes(image.read_bytes().ljust(16 << 20, b"\0"))
    number = int(guest.add_pmem(memory).wait().removeprefix("/dev/pmem"))
    seen = inside(
        guest, "strict_life", "VPMemDevice", {"DeviceNumber": number, "MountPath": PATH}, f"{PATH}/file"
    )
    assert seen["text"] == "in the layer"
    assert list(seen["during"]["devices"]) == [f"dm-verity-pmem{number}-{digest}"]
    assert seen["clean"]


@pytest.mark.parametrize("kind", ["layer", "scratch", "link", "part of memory"])
def test_every_step_of_an_add_fails_once_on_the_real_kernel_and_leaves_nothing(
    guest: Guest, layer: tuple[Path, str], tmp_path: Path, kind: str
) -> None:
    resource, settings, blank = "MappedVirtualDisk", LAYER, False
    only: list[str] = []
    if kind == "part of memory":
        resource = "VPMemDevice"
        memory = tmp_path / "pmem.img"
        memory.write_bytes(bytes(1 << 20) + layer[0].read_bytes().ljust(15 << 20, b"\0"))
        node = guest.add_pmem(memory, port="rp2").wait()
        mapping = {"DeviceOffsetInBytes": 1 << 20, "DeviceSizeInBytes": 15 << 20}
        number = int(node.removeprefix("/dev/pmem"))
        settings = {"DeviceNumber": number, "MountPath": PATH, "MappingInfo": mapping}
    elif kind == "scratch":
        drive = guest.add_disk(guest.image("scratch", 16), lun=2)
        node, settings, blank = drive.wait(), SCRATCH, True
        # On a loop device all of them fail natively; mkfs takes its time here.
        only = ["run mkfs", "mount /dev", "after registering"]
    else:
        drive = guest.add_disk(layer[0], lun=1, read_only=True)
        node, settings = drive.wait(), {**LAYER, "BlockDev": kind == "link"}
    strict = kind in ("layer", "link")
    result = inside(guest, "storm", resource, settings, node, strict, only, blank, timeout_s=300)
    assert (result["marked"], result["left"]) == (None, [])
    assert len(result["steps"]) > (4 if only else 15)
    if kind != "part of memory":
        drive.remove()


def test_the_slow_steps_of_an_encrypted_disk_fail_once_on_the_real_kernel(guest: Guest) -> None:
    drive = guest.add_disk(guest.image("scratch", 400), lun=2)
    # All of them fail on the fake kernel; here one before the disk is open and the last one of all.
    only = ["luksOpen", "mount /dev/mapper"]
    result = inside(
        guest, "storm", "MappedVirtualDisk", ENCRYPTED, drive.wait(), False, only, False, timeout_s=400
    )
    assert (result["marked"], result["left"]) == (None, [])
    assert len(result["steps"]) == 2
    drive.remove()


def test_every_step_of_a_share_fails_once_on_the_real_9p_and_leaves_nothing(guest: Guest) -> None:
    guest.sh("mkdir /run/shared; mount -t tmpfs shared /run/shared; touch /run/shared/file")
    port = guest.serve_9p("/run/shared")
    settings = {"MountPath": PATH, "Port": port, "ShareName": "/run/shared"}
    result = inside(guest, "storm", "MappedDirectory", settings, "", False, [], False, timeout_s=300)
    assert (result["marked"], result["left"]) == (None, [])
    told = " ".join(result["steps"])
    assert all(
        step in told for step in (f"dial {port}", "mkdir m0", "run mount", "after registering: unmount")
    )
    guest.sh("umount /run/shared; rmdir /run/shared")


def test_a_real_kernel_answers_as_the_fake_one_does(guest: Guest, golden: Callable[[str, str], None]) -> None:
    drive = guest.add_disk(guest.image("disk", 16), lun=1)
    answers = inside(guest, "kernel_answers", drive.wait(), "/run/storm/answers")
    golden("kernel_answers.json", json.dumps(answers, indent=1) + "\n")
    drive.remove()
