"""SCSI disks on a real kernel through the real daemon: layers, scratch disks, what goes wrong."""

from __future__ import annotations

import mmap
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guest.harness.guest import Guest
from guest.harness.settings import IMPATIENT
from support import disks
from support.host import MODIFY, ZERO_GUID, Refused, code
from uvmd.api.testing.guest.leaks import holdings

PATH = "/run/mounts/scsi/m0"
LAYER = {"MountPath": PATH, "Lun": 1, "ReadOnly": True, "Options": ["ro"]}
SCRATCH = {"MountPath": "/run/gcs/c/s", "Lun": 2, "EnsureFilesystem": True, "Filesystem": "ext4"}
XFS = {**SCRATCH, "Filesystem": "xfs"}
ENCRYPTED = {**XFS, "Encrypted": True}


@pytest.fixture(scope="module")
def uvmd_settings() -> str:
    return IMPATIENT


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A real file system."""
    return disks.real_ext4(tmp_path_factory.mktemp("layer") / "layer.img")


@pytest.fixture
def image(tmp_path: Path) -> Callable[[bytes], Path]:
    """Make a disk image of these bytes."""

    def make(content: bytes) -> Path:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.img"
        path.write_bytes(content)
        return path

    return make


def disk(request: str, guest: Guest, settings: dict[str, Any], **changed: Any) -> None:
    guest.bridge.modify(ZERO_GUID, "MappedVirtualDisk", request, {**settings, **changed})


def send(guest: Guest, request: str, settings: dict[str, Any], resource: str = "MappedVirtualDisk") -> int:
    """Ask without waiting for the answer."""
    inner = {"RequestType": request, "ResourceType": resource, "Settings": settings}
    return guest.bridge.send(MODIFY, {"ContainerId": ZERO_GUID, "ActivityId": ZERO_GUID, "Request": inner})


def mapped(guest: Guest) -> str:
    return guest.sh("dmsetup ls").strip()


# Layers


def test_a_layer_is_mounted_through_dm_verity_and_leaves_nothing(
    guest: Guest, data: bytes, image: Callable[[bytes], Path]
) -> None:
    drive = guest.add_disk(image(disks.layer(data)), lun=1, read_only=True)
    disk("Add", guest, LAYER)
    assert guest.read(f"{PATH}/file") == "in the layer"
    table = guest.sh("dmsetup table")
    assert table.startswith("dm-verity-scsi-contr")
    assert disks.root_digest(data) in table
    assert guest.sh("stat -c %a:%F /dev/mapper/dm-verity*") == "600:block special file\n"
    with pytest.raises(Refused, match="already exists"):
        disk("Add", guest, LAYER)
    disk("Remove", guest, LAYER)
    assert mapped(guest) == "No devices found"
    drive.remove()


def test_a_partition_is_found_and_several_are_independent(
    guest: Guest, data: bytes, image: Callable[[bytes], Path]
) -> None:
    drive = guest.add_disk(
        image(disks.partitioned([disks.layer(data)] * 2)), controller=1, lun=3, read_only=True
    )
    of = {"Controller": 1, "Lun": 3, "ReadOnly": True}
    for partition in (1, 2):
        disk("Add", guest, of, MountPath=f"/run/mounts/scsi/m{partition}", Partition=partition)
    assert guest.read("/run/mounts/scsi/m2/file") == "in the layer"
    assert len(mapped(guest).splitlines()) == 2
    with pytest.raises(
        Refused, match=r"partition 3 did not come within (5\.9|6\.\d) s .*; there is sd. with sd.1, sd.2"
    ):
        disk("Add", guest, of, MountPath=PATH, Partition=3)
    for partition in (1, 2):
        disk("Remove", guest, of, MountPath=f"/run/mounts/scsi/m{partition}", Partition=partition)
    drive.remove()


def test_one_disk_at_two_paths_shares_its_device(
    guest: Guest, data: bytes, image: Callable[[bytes], Path]
) -> None:
    drive = guest.add_disk(image(disks.layer(data)), lun=1, read_only=True)
    for path in (PATH, f"{PATH}0"):
        disk("Add", guest, LAYER, MountPath=path)
    assert len(mapped(guest).splitlines()) == 1
    disk("Remove", guest, LAYER)
    assert guest.read(f"{PATH}0/file") == "in the layer"
    disk("Remove", guest, LAYER, MountPath=f"{PATH}0")
    drive.remove()


def test_a_block_device_is_a_link_to_a_real_node(
    guest: Guest, data: bytes, image: Callable[[bytes], Path]
) -> None:
    drive = guest.add_disk(image(disks.layer(data)), lun=1, read_only=True)
    for settings in ({**LAYER, "BlockDev": True}, {"MountPath": PATH, "Lun": 1, "BlockDev": True}):
        disk("Add", guest, settings)
        assert guest.sh(f"stat -c %F $(readlink {PATH})") == "block special file\n"
        disk("Remove", guest, settings)
        assert "No such file" in guest.sh(f"ls {PATH} 2>&1", check=False)
    drive.remove()


# What a host or its image does wrong


def test_a_corrupted_block_is_an_io_error_and_the_layer_is_still_removed(
    guest: Guest, data: bytes, image: Callable[[bytes], Path]
) -> None:
    layer = bytearray(disks.layer(data))
    layer[layer.index(b"in the layer")] ^= 1
    drive = guest.add_disk(image(bytes(layer)), lun=1, read_only=True)
    disk("Add", guest, LAYER)
    assert "Input/output error" in guest.sh(f"cat {PATH}/file 2>&1", check=False)
    disk("Remove", guest, LAYER)
    drive.remove()


@pytest.mark.parametrize("where", ["superblock", "leaves", "top", "signature", "no tree", "no file system"])
def test_a_corrupt_layer_is_refused_and_leaves_nothing(
    guest: Guest, data: bytes, image: Callable[[bytes], Path], where: str
) -> None:
    layer = bytearray(disks.layer(data))
    at = {"superblock": 1100, "leaves": len(layer) - 1, "top": len(data) + 4096, "signature": len(data)}
    if where == "no tree":
        layer = bytearray(data)
    elif where == "no file system":
        layer = bytearray(b"x" * len(data))
    elif where == "leaves":
        layer[len(data) + 8192 :] = bytes(len(layer) - len(data) - 8192)
    else:
        layer[at[where]] ^= 0xFF
    drive = guest.add_disk(image(bytes(layer)), lun=1, read_only=True)
    with pytest.raises(Refused) as caught:
        disk("Add", guest, LAYER)
    expected = {
        "signature": "invalid dm-verity super-block signature",
        "no tree": "leaves no room for a hash tree",
        "no file system": "not an ext4 file system",
    }
    # What the digest covers is found when the kernel reads it.
    assert expected.get(where, "mounting: /dev/mapper/dm-verity-scsi-") in str(caught.value)
    assert mapped(guest) == "No devices found"
    drive.remove()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"Lun": 9},
            r"SCSI disk \d+:0:0:9 did not come within (5\.9|6\.\d) s .*; there is no LUN on SCSI host",
        ),
        (
            {"Controller": 2},
            r"SCSI controller 2 did not come within (5\.9|6\.\d) s \(virtio-scsi controllers: host",
        ),
        ({"Controller": 4}, "SCSI controller 4: there are 0 to 3"),
        ({"MountPath": "/run/../etc"}, "not a clean absolute path"),
        ({"Partition": 300}, "Partition is not between"),
    ],
)
def test_what_is_not_there_is_said_in_time(guest: Guest, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(Refused, match=text):
        disk("Add", guest, {"MountPath": PATH, **settings})
    assert guest.run("/bin/true").exit_code == 0


def test_a_file_or_a_link_in_the_way_is_refused_and_stays(
    guest: Guest, data: bytes, image: Callable[[bytes], Path]
) -> None:
    drive = guest.add_disk(image(disks.layer(data)), lun=1, read_only=True)
    guest.sh("mkdir /run/real; ln -s real /run/link; echo kept >/run/file")
    for path in ("/run/link/m0", "/run/link", "/run/file", "/run/file/m0"):
        with pytest.raises(Refused, match=r"mount point .*: (not a directory|too many levels of symbolic)"):
            disk("Add", guest, LAYER, MountPath=path)
    assert guest.sh("cat /run/file; ls /run/real") == "kept\n"
    guest.sh("rm -r /run/real /run/link /run/file")
    drive.remove()


def test_a_disk_that_comes_while_it_is_waited_for_is_taken_at_once(
    guest: Guest, data: bytes, image: Callable[[bytes], Path]
) -> None:
    file = image(disks.layer(data))
    request = send(guest, "Add", LAYER)
    time.sleep(0.5)
    drive = guest.add_disk(file, lun=1, read_only=True)
    assert code(guest.bridge.answer(request)) == "S_OK"
    disk("Remove", guest, LAYER)
    drive.remove()


# Scratch disks


@pytest.mark.parametrize("settings", [SCRATCH, XFS], ids=["ext4", "xfs"])
def test_a_scratch_is_formatted_once_and_keeps_its_content(guest: Guest, settings: dict[str, Any]) -> None:
    drive = guest.add_disk(guest.image("scratch", 512), lun=2)
    path = settings["MountPath"]
    disk("Add", guest, settings)
    assert settings["Filesystem"] in guest.sh(f"grep ' {path} ' /proc/mounts")
    guest.sh(f"echo kept >{path}/file")
    disk("Remove", guest, settings)
    disk("Add", guest, settings)
    assert guest.read(f"{path}/file") == "kept\n"
    disk("Remove", guest, settings)
    drive.remove()


def test_an_encrypted_scratch_hides_what_is_written_and_forgets_it(guest: Guest) -> None:
    file = guest.image("scratch", 400)
    drive = guest.add_disk(file, lun=2)
    path, secret = ENCRYPTED["MountPath"], "a secret of the container"
    disk("Add", guest, ENCRYPTED)
    kinds = {line.split()[3] for line in guest.sh("dmsetup table").splitlines()}
    assert kinds == {"crypt", "integrity"}
    guest.sh(
        f"for n in $(seq 2000); do echo '{secret}'; done >{path}/file; sync; echo 3 >/proc/sys/vm/drop_caches"
    )
    assert secret in guest.read(f"{path}/file")
    # A V1 host does not repeat that it is encrypted.
    disk("Remove", guest, {**ENCRYPTED, "Encrypted": False})
    assert mapped(guest) == "No devices found"
    assert "secret" not in guest.sh("cat /run/uvmd/devices.json /run/uvmd/plugins/*.json")
    found = subprocess.run(["grep", "-c", secret, file], capture_output=True, text=True)
    assert found.stdout == "0\n"
    drive.remove()


def test_an_encrypted_disk_has_no_header_and_nothing_of_what_was_on_it(guest: Guest) -> None:
    file = guest.image("scratch", 400)
    drive = guest.add_disk(file, lun=2)
    path = SCRATCH["MountPath"]
    disk("Add", guest, SCRATCH)
    guest.sh(f"echo kept >{path}/file")
    disk("Remove", guest, SCRATCH)
    disk("Add", guest, ENCRYPTED)
    guest.sh(f"echo new >{path}/file; sync")
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as host:
        # The first and the second header of LUKS2: what the host holds, it may change.
        assert (host.find(b"LUKS\xba\xbe"), host.find(b"SKUL\xba\xbe")) == (-1, -1)
    disk("Remove", guest, ENCRYPTED)
    disk("Add", guest, SCRATCH)
    assert guest.sh(f"ls {path}") == "lost+found\n"
    disk("Remove", guest, SCRATCH)
    drive.remove()


def test_a_blank_disk_is_no_file_system_and_a_small_one_cannot_be_xfs(guest: Guest) -> None:
    drive = guest.add_disk(guest.image("small", 64), lun=2)
    with pytest.raises(Refused, match=r"could not get device filesystem type of /dev/sd.$"):
        disk("Add", guest, {"MountPath": PATH, "Lun": 2})
    with pytest.raises(Refused, match=r"xfs format: mkfs\.xfs failed with [^;\n]*300MB\.: exit status 1$"):
        disk("Add", guest, XFS)
    disk("Add", guest, SCRATCH)
    disk("Remove", guest, SCRATCH)
    drive.remove()


def test_a_full_scratch_is_still_removed(guest: Guest) -> None:
    drive = guest.add_disk(guest.image("small", 16), lun=2)
    disk("Add", guest, SCRATCH)
    assert "No space left" in guest.sh(
        f"dd if=/dev/zero of={SCRATCH['MountPath']}/all bs=1M 2>&1", check=False
    )
    disk("Remove", guest, SCRATCH)
    drive.remove()


# Taking away


def test_a_disk_is_unplugged_and_its_address_is_free_again(
    guest: Guest, data: bytes, image: Callable[[bytes], Path]
) -> None:
    for _ in range(2):
        drive = guest.add_disk(image(disks.layer(data)), lun=1, read_only=True)
        disk("Add", guest, LAYER)
        disk("Remove", guest, LAYER)
        path = drive.wait()
        for _ in range(2):
            guest.bridge.modify(ZERO_GUID, "SCSIDevice", "Remove", {"Lun": 1})
        assert "No such file" in guest.sh(f"ls {path} 2>&1", check=False)
        drive.remove()


def test_a_busy_disk_is_an_error_that_is_shown_and_can_be_repeated(
    fresh_guest: Guest, data: bytes, image: Callable[[bytes], Path]
) -> None:
    fresh_guest.add_disk(image(disks.layer(data)), lun=1, read_only=True)
    before = fresh_guest.call(holdings)
    disk("Add", fresh_guest, LAYER)
    pid = fresh_guest.sh(f"cd {PATH}; sleep 600 >/dev/null 2>&1 & echo $!").strip()
    with pytest.raises(
        Refused, match=f"unmounting scsi device at {PATH} failed: .*: device or resource busy"
    ):
        disk("Remove", fresh_guest, LAYER)
    assert fresh_guest.read(f"{PATH}/file") == "in the layer"
    fresh_guest.sh(f"kill {pid}")
    disk("Remove", fresh_guest, LAYER)
    left = fresh_guest.call(holdings)
    assert (left["mounts"], left["block devices"]) == (before["mounts"], before["block devices"])


def test_a_disk_that_is_pulled_out_under_its_mount_can_be_removed(
    guest: Guest, data: bytes, image: Callable[[bytes], Path]
) -> None:
    drive = guest.add_disk(image(disks.layer(data)), lun=1, read_only=True)
    disk("Add", guest, LAYER)
    drive.remove()
    assert (
        guest.sh(f"cat {PATH}/file 2>&1 >/dev/null; echo 3 >/proc/sys/vm/drop_caches; ls {PATH}", check=False)
        is not None
    )
    disk("Remove", guest, LAYER)
    assert mapped(guest) == "No devices found"


# The daemon dies


def test_what_one_daemon_added_the_next_one_removes(
    fresh_guest: Guest, data: bytes, image: Callable[[bytes], Path]
) -> None:
    fresh_guest.add_disk(image(disks.layer(data)), lun=1, read_only=True).wait()
    fresh_guest.run("/bin/true")
    before = fresh_guest.call(holdings)
    disk("Add", fresh_guest, LAYER)
    fresh_guest.daemon.wait_for_another(fresh_guest.daemon.kill())
    fresh_guest.hang_up()
    with pytest.raises(Refused, match="already exists"):
        disk("Add", fresh_guest, LAYER)
    disk("Remove", fresh_guest, LAYER)
    left = fresh_guest.call(holdings)
    for what in ("mounts", "block devices", "bundles"):
        assert left[what] == before[what]


def test_a_disk_whose_daemon_is_killed_in_the_middle_is_added_by_the_next(
    fresh_guest: Guest,
) -> None:
    fresh_guest.add_disk(fresh_guest.image("scratch", 400), lun=2).wait()
    before = fresh_guest.call(holdings)
    adding = send(fresh_guest, "Add", ENCRYPTED)

    def running() -> bool:
        import glob

        for path in glob.glob("/proc/[0-9]*/cmdline"):
            try:
                with open(path, "rb") as file:
                    if b"luksOpen" in file.read():
                        return True
            except OSError:
                pass
        return False

    fresh_guest.wait_until(running, timeout_s=60)
    fresh_guest.daemon.wait_for_another(fresh_guest.daemon.kill())
    # On the same connection: the request outlives the daemon that had begun it.
    assert fresh_guest.bridge.answer(adding, timeout_s=120)["Result"] == 0
    disk("Remove", fresh_guest, ENCRYPTED)
    left = fresh_guest.call(holdings)
    for what in ("mounts", "block devices", "bundles"):
        assert left[what] == before[what]
