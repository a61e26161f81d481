"""Finding the host's adapter on made-up trees of sysfs: Hyper-V's, and those of other VMs."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from uvmd.errors import DeadlineExceeded, Failed, Refused
from uvmd.linux.platform import Hyperv, Virtio
from uvmd_network.find import wait_for_interface
from uvmd_network.settings import AdapterSettings

GUID = "2a1e7c36-31c5-4bd4-8d2f-9c3e5a0b7d11"
MAC = "02:ab:00:00:00:01"
ADDRESS = "0000:00:05.0"


class Sysfs:
    """A tree, and looks at it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("bus/vmbus/devices", "bus/pci/devices", "class/net"):
            (root / folder).mkdir(parents=True)

    def make(self, *paths: str) -> None:
        for path in paths:
            (self.root / path).mkdir(parents=True, exist_ok=True)

    def nic(self, name: str, mac: str, *, device: bool = True) -> None:
        self.make(f"class/net/{name}" + ("/device" if device else ""))
        (self.root / f"class/net/{name}/address").write_text(mac + "\n")

    def find(
        self, kind: type[Hyperv] | type[Virtio], id: str, timeout_s: float = 0.02, **more: object
    ) -> str:
        settings = AdapterSettings.model_validate({"ID": id, **more})
        return wait_for_interface(kind(str(self.root)), settings, time.monotonic() + timeout_s)


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    return Sysfs(tmp_path)


VMBUS = f"bus/vmbus/devices/{GUID}"


def test_a_vmbus_adapter_is_told_by_its_guid_in_any_case(sysfs: Sysfs) -> None:
    sysfs.make(f"{VMBUS}/net/eth7")
    assert sysfs.find(Hyperv, GUID.upper(), MacAddress="not looked at") == "eth7"


def test_an_assigned_adapter_is_below_its_pci_device(sysfs: Sysfs) -> None:
    sysfs.make(f"{VMBUS}/net/eth0", f"{VMBUS}/pci8a2b:00/8a2b:00:02.0/net/enP1")
    assert sysfs.find(Hyperv, GUID, VPCIAssigned=True) == "enP1"
    sysfs.make(f"{VMBUS}/pci8a2c:00")
    with pytest.raises(Failed, match="more than one file could exist"):
        sysfs.find(Hyperv, GUID, VPCIAssigned=True)


def test_two_interfaces_in_one_place_are_an_error(sysfs: Sysfs) -> None:
    sysfs.make(f"{VMBUS}/net/eth0", f"{VMBUS}/net/eth1")
    with pytest.raises(Failed, match=r"more than one network interface in .*: eth0, eth1"):
        sysfs.find(Hyperv, GUID)


def test_what_is_no_guid_is_refused_before_anything_is_looked_at(sysfs: Sysfs) -> None:
    sysfs.make("bus/vmbus/devices/x/net/eth0")
    for text in ("x", "*", "../devices/x", "", MAC, ADDRESS):
        with pytest.raises(Refused, match="ID is not a GUID"):
            sysfs.find(Hyperv, text)


def test_an_adapter_that_does_not_come_is_given_up_and_the_error_says_what_is_there(sysfs: Sysfs) -> None:
    sysfs.nic("eth3", MAC)
    sysfs.make(f"{VMBUS}/net")
    with pytest.raises(DeadlineExceeded) as caught:
        sysfs.find(Hyperv, GUID)
    text = str(caught.value)
    assert f"the vmbus network adapter {GUID} did not come within" in text
    assert "there is eth3" in text


@pytest.mark.parametrize("platform", [Hyperv, Virtio])
def test_an_adapter_that_comes_in_time_is_found(sysfs: Sysfs, platform: type[Hyperv] | type[Virtio]) -> None:
    def come() -> None:
        sysfs.make(f"{VMBUS}/net/eth0")
        sysfs.nic("eth0", MAC)

    timer = threading.Timer(0.02, come)
    timer.start()
    try:
        assert sysfs.find(platform, GUID, 5, MacAddress=MAC) == "eth0"
    finally:
        timer.join()


def test_elsewhere_an_adapter_is_told_by_its_mac_address(sysfs: Sysfs) -> None:
    sysfs.nic("eth0", "02:ab:00:00:00:02")
    sysfs.nic("eth1", MAC)
    sysfs.make("class/net/bonding_masters")
    assert sysfs.find(Virtio, MAC) == "eth1"
    assert sysfs.find(Virtio, "02-AB-00-00-00-01") == "eth1"
    assert sysfs.find(Virtio, GUID, MacAddress="02-AB-00-00-00-01") == "eth1"
    with pytest.raises(Refused, match="neither MacAddress nor ID is a MAC address"):
        sysfs.find(Virtio, GUID)


def test_what_is_stacked_upon_an_adapter_is_not_it(sysfs: Sysfs) -> None:
    sysfs.nic("bond0", MAC, device=False)
    sysfs.nic("eth1", MAC)
    assert sysfs.find(Virtio, MAC) == "eth1"
    sysfs.nic("eth2", MAC)
    with pytest.raises(
        Failed, match=f"more than one network interface has the MAC address {MAC}: eth1, eth2"
    ):
        sysfs.find(Virtio, MAC)


def test_elsewhere_an_adapter_is_told_by_its_pci_address(sysfs: Sysfs) -> None:
    sysfs.make(f"bus/pci/devices/{ADDRESS}/virtio3/net/eth4", "bus/pci/devices/0000:00:06.0/net/mlx0")
    assert sysfs.find(Virtio, ADDRESS) == "eth4"
    assert sysfs.find(Virtio, "0000:00:06.0") == "mlx0"
    with pytest.raises(DeadlineExceeded, match=r"at PCI address 0000:00:07\.0 did not come"):
        sysfs.find(Virtio, "0000:00:07.0")
