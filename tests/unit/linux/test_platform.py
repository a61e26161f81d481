"""Hyper-V's and virtio's trees, constructed: which controller is which SCSI host, where a PCI device is."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from uvmd.errors import Failed, Refused
from uvmd.linux import platform
from uvmd.linux.platform import Hyperv, Virtio, find_platform

NAMESPACE = uuid.UUID("d422512d-2bf2-4752-809d-7b82b5fcb1b4")
GUID = "6f8b1c5a-0d7e-4a44-9f0b-5a1d2f3c4b5a"


def vmbus(tmp_path: Path, guid: str, *names: str) -> Path:
    folder = tmp_path / "bus" / "vmbus" / "devices" / guid
    for name in names:
        (folder / name).mkdir(parents=True)
    return folder


def virtio(tmp_path: Path, number: int, pci: str, *inside: str, kind: int = 1) -> None:
    """A virtio device as sysfs shows it: the bus has a link to where it hangs."""
    device = tmp_path / "devices" / "pci0000:00" / pci / f"virtio{number}"
    device.mkdir(parents=True)
    for name in inside:
        (device / name).mkdir()
    (device / "device").write_text(f"0x{kind:04x}\n")
    bus = tmp_path / "bus" / "virtio" / "devices"
    bus.mkdir(parents=True, exist_ok=True)
    (bus / f"virtio{number}").symlink_to(device)


def test_the_kind_of_vm_is_told_by_its_buses(tmp_path: Path) -> None:
    assert isinstance(find_platform(str(tmp_path)), Virtio)
    vmbus(tmp_path, GUID, "net")
    found = find_platform(str(tmp_path), "/elsewhere")
    assert (found.name, found.sys_root, found.dev_root) == ("hyperv", str(tmp_path), "/elsewhere")


# Hyper-V


@pytest.mark.parametrize("controller", range(4))
def test_each_of_hyper_v_s_controllers_has_the_guid_of_its_index(tmp_path: Path, controller: int) -> None:
    guid = uuid.uuid5(NAMESPACE, str(controller))
    vmbus(tmp_path, str(guid), "block", f"host{controller + 3}", "power")
    assert Hyperv(str(tmp_path)).scsi_host(controller) == controller + 3


@pytest.mark.parametrize("kind", [Hyperv, Virtio])
@pytest.mark.parametrize("controller", [4, 255, -1])
def test_an_index_that_no_controller_has_is_refused(
    tmp_path: Path, kind: type[Hyperv | Virtio], controller: int
) -> None:
    with pytest.raises(Refused, match=f"SCSI controller {controller}: there are 0 to 3"):
        kind(str(tmp_path)).scsi_host(controller)


def test_a_controller_that_has_not_come_is_not_found(tmp_path: Path) -> None:
    there = Hyperv(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        there.scsi_host(0)
    vmbus(tmp_path, platform._CONTROLLER_GUIDS[0], "power")
    with pytest.raises(FileNotFoundError, match="directory not found inside"):
        there.scsi_host(0)


@pytest.mark.parametrize("name", ["host", "host256", "host-1", "hostess", "host1x"])
def test_a_host_without_a_number_is_an_error(tmp_path: Path, name: str) -> None:
    vmbus(tmp_path, platform._CONTROLLER_GUIDS[1], name)
    with pytest.raises(Failed, match=f"failed to parse controller number from {name}"):
        Hyperv(str(tmp_path)).scsi_host(1)


def test_a_pci_device_is_found_by_its_vmbus_guid(tmp_path: Path) -> None:
    there = Hyperv(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        there.pci_path(GUID)
    folder = vmbus(tmp_path, GUID, "driver", "pci4a5b:00")
    with pytest.raises(FileNotFoundError, match="no PCI device"):
        there.pci_path(GUID.upper())
    (folder / "pci4a5b:00" / "pci_bus").mkdir()
    (folder / "pci4a5b:00" / "4a5b:00:00.1").mkdir()
    (folder / "pci4a5b:00" / "4a5b:00:00.0").mkdir()
    assert there.pci_path(GUID.upper()) == f"{folder}/pci4a5b:00/4a5b:00:00.0"
    (folder / "pci4a5b:00" / "4a5b:00:01.0").mkdir()
    with pytest.raises(Failed, match="more than one file could exist for pattern"):
        there.pci_path(GUID)


def test_two_buses_of_one_guid_are_an_error(tmp_path: Path) -> None:
    vmbus(tmp_path, GUID, "pci4a5b:00", "pci4a5b:01")
    with pytest.raises(Failed, match=r"more than one file could exist for pattern .*/pci\*"):
        Hyperv(str(tmp_path)).pci_path(GUID)


@pytest.mark.parametrize(
    "name", ["", "..", "../../..", "*", f"{GUID}/..", f"{GUID}\n", GUID[:-1], "0000:00:01.0"]
)
def test_only_a_guid_names_a_vmbus_device(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused, match="named by a GUID"):
        Hyperv(str(tmp_path)).pci_path(name)


# Virtio


def test_controllers_are_counted_by_pci_address_and_not_by_host_number(tmp_path: Path) -> None:
    virtio(tmp_path, 0, "0000:00:1a.0", "host0")
    virtio(tmp_path, 1, "0000:00:04.0", "net")
    virtio(tmp_path, 2, "0000:00:05.1", "host7")
    virtio(tmp_path, 3, "0000:00:05.0", "host12")
    virtio(tmp_path, 4, "0000:00:02.0/0000:01:00.0", "host3")
    there = Virtio(str(tmp_path))
    assert [there.scsi_host(controller) for controller in range(4)] == [12, 7, 0, 3]


def test_controllers_on_another_bus_come_after_those_on_pci(tmp_path: Path) -> None:
    virtio(tmp_path, 0, "a-platform-device", "host0")
    virtio(tmp_path, 1, "0000:00:1f.0", "host1")
    there = Virtio(str(tmp_path))
    assert [there.scsi_host(controller) for controller in range(2)] == [1, 0]


def test_a_controller_that_is_not_there_says_which_are(tmp_path: Path) -> None:
    there = Virtio(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        there.scsi_host(0)
    virtio(tmp_path, 0, "0000:00:1a.0", "net")
    with pytest.raises(FileNotFoundError, match="virtio-scsi controllers: none"):
        there.scsi_host(0)
    virtio(tmp_path, 1, "0000:00:1b.0", "host2")
    with pytest.raises(FileNotFoundError, match="virtio-scsi controllers: host 2"):
        there.scsi_host(1)


def test_a_controller_without_its_host_keeps_its_place(tmp_path: Path) -> None:
    virtio(tmp_path, 0, "0000:00:04.0", kind=8)
    virtio(tmp_path, 1, "0000:00:05.0", "host3", kind=8)
    there = Virtio(str(tmp_path))
    for _ in range(2):
        assert there.scsi_host(1) == 3
        with pytest.raises(FileNotFoundError, match="virtio-scsi controllers: no host yet, host 3"):
            there.scsi_host(0)
    (tmp_path / "bus" / "virtio" / "devices" / "virtio0" / "host4").mkdir()
    assert [there.scsi_host(controller) for controller in range(2)] == [4, 3]


def test_a_controller_that_is_plugged_in_later_is_counted(tmp_path: Path) -> None:
    virtio(tmp_path, 5, "0000:00:05.0", "host3", kind=8)
    there = Virtio(str(tmp_path))
    assert [there.scsi_host(0) for _ in range(2)] == [3, 3]
    virtio(tmp_path, 1, "0000:00:04.0", "host7", kind=8)
    assert [there.scsi_host(controller) for controller in range(2)] == [7, 3]


def test_a_driver_that_came_again_has_another_host(tmp_path: Path) -> None:
    virtio(tmp_path, 5, "0000:00:05.0", "host3", kind=8)
    there = Virtio(str(tmp_path))
    assert there.scsi_host(0) == 3
    device = tmp_path / "bus" / "virtio" / "devices" / "virtio5"
    (device / "host3").rename(device / "host4")
    assert there.scsi_host(0) == 4


def test_a_device_that_goes_while_one_looks_is_left_out(tmp_path: Path) -> None:
    virtio(tmp_path, 1, "0000:00:1b.0", "host2")
    (tmp_path / "bus" / "virtio" / "devices" / "virtio0").symlink_to(tmp_path / "gone")
    assert Virtio(str(tmp_path)).scsi_host(0) == 2


def test_a_pci_function_is_found_by_its_address(tmp_path: Path) -> None:
    there = Virtio(str(tmp_path))
    folder = tmp_path / "bus" / "pci" / "devices"
    folder.mkdir(parents=True)
    with pytest.raises(FileNotFoundError):
        there.pci_path("0000:02:00.0")
    (folder / "0000:02:00.0").symlink_to(tmp_path)
    (folder / "0000:02:0a.0").symlink_to(tmp_path)
    assert there.pci_path("0000:02:00.0") == f"{folder}/0000:02:00.0"
    assert there.pci_path("0000:02:0A.0") == f"{folder}/0000:02:0a.0"
    for name in ("", "..", "02:00.0", "0000:02:00", "0000:02:00.8", "0000:02:00.0/..", GUID):
        with pytest.raises(Refused, match="named by its address"):
            there.pci_path(name)
