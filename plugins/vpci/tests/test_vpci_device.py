"""VPCIDevice on made-up trees of sysfs: found, waited for, refused, given up."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.faults import Faults
from uvmd.api.testing import Workbench, fake_environment
from uvmd.errors import DeadlineExceeded, Failed, InvalidMessage, Refused
from uvmd.linux.platform import Hyperv, Virtio
from uvmd.plugin_manager import load_plugins
from uvmd.plugin_manager.inspection import resolve_all
from uvmd_vpci import plugin
from uvmd_vpci.config import VpciConfig
from uvmd_vpci.device import there

GUID = "2a1e7c36-31c5-4bd4-8d2f-9c3e5a0b7d11"
ADDRESS = "0000:00:05.0"


class Hypervised:
    """A tree of sysfs as Hyper-V shows it, or as QEMU does, and requests against it."""

    def __init__(self, root: Path, kind: type[Hyperv] | type[Virtio], timeout_s: float = 0.02) -> None:
        self.sys = root
        (root / "bus/pci/devices").mkdir(parents=True)
        environment = fake_environment(VpciConfig(device_timeout_s=timeout_s), platform=kind(str(root)))
        self.bench = Workbench(plugin.resource_types(), environment)

    def vmbus(self, *functions: str, guid: str = GUID, bus: str = "8a2b:00") -> None:
        folder = self.sys / "bus/vmbus/devices" / guid / f"pci{bus}"
        folder.mkdir(parents=True, exist_ok=True)
        for name in functions:
            (folder / name).mkdir()

    def pci(self, *addresses: str) -> None:
        for address in addresses:
            (self.sys / "bus/pci/devices" / address).mkdir()

    def add(self, device: Any = GUID) -> None:
        self.bench.add("VPCIDevice", {"VMBusGUID": device})


@pytest.fixture
def hyperv(tmp_path: Path) -> Hypervised:
    return Hypervised(tmp_path, Hyperv)


@pytest.fixture
def virtio(tmp_path: Path) -> Hypervised:
    return Hypervised(tmp_path, Virtio)


def test_it_declares_one_type_and_everything_resolves() -> None:
    plugins = load_plugins(allow=["vpci"], sections={"vpci": {"device_timeout_s": 5.0}})
    assert list(plugins.resource_types) == ["VPCIDevice"]
    assert plugins.config("vpci").device_timeout_s == 5
    assert len(resolve_all(plugins)) == 1


def test_a_device_behind_its_guid_is_there_at_once(hyperv: Hypervised) -> None:
    hyperv.vmbus("8a2b:00:00.0", "power", "uevent")
    hyperv.add()
    hyperv.add(GUID.upper())
    assert hyperv.bench.mounted() == []


def test_several_functions_of_one_device_are_one_device(hyperv: Hypervised) -> None:
    hyperv.vmbus("8a2b:00:00.0", "8a2b:00:00.1")
    hyperv.add()


def test_two_devices_behind_one_guid_fail_at_once(hyperv: Hypervised) -> None:
    hyperv.vmbus("8a2b:00:00.0", "8a2b:00:01.0")
    with pytest.raises(Failed, match="more than one file could exist for pattern"):
        hyperv.add()


def test_a_device_that_does_not_come_is_named_with_what_is_there(hyperv: Hypervised) -> None:
    hyperv.pci("0000:00:1f.0")
    said = rf"PCI device {GUID} did not come within .* there is 0000:00:1f.0"
    with pytest.raises(DeadlineExceeded, match=said):
        hyperv.add()


def test_a_bus_without_a_device_yet_is_waited_for(hyperv: Hypervised) -> None:
    hyperv.vmbus()
    with pytest.raises(DeadlineExceeded, match="no PCI device"):
        hyperv.add()


def test_whichever_look_fails_nothing_is_left_and_the_next_finds_it(
    hyperv: Hypervised, monkeypatch: pytest.MonkeyPatch
) -> None:
    hyperv.vmbus("8a2b:00:00.0")
    descriptors = len(os.listdir("/proc/self/fd"))
    # It has no steps that change anything, so all there is to fail is finding.
    met = list(Faults(monkeypatch).each_call(hyperv.add, lambda: None))
    assert len(met) >= 2
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert (hyperv.bench.mounted(), hyperv.bench.gate.degraded) == ([], None)


def test_a_device_that_comes_late_is_seen(tmp_path: Path) -> None:
    late = Hypervised(tmp_path, Hyperv, timeout_s=10)
    late.vmbus()
    thread = threading.Timer(0.02, lambda: late.vmbus("8a2b:00:00.0"))
    thread.start()
    began = time.monotonic()
    late.add()
    thread.join()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("name", ["", "*", "../../x", GUID + "/..", GUID[:-1], GUID + "0", ADDRESS])
def test_what_is_no_guid_is_refused_without_waiting(tmp_path: Path, name: str) -> None:
    patient = Hypervised(tmp_path, Hyperv, timeout_s=100)
    with pytest.raises(Refused, match="named by a GUID"):
        patient.add(name)


def test_elsewhere_the_device_is_named_by_its_pci_address(virtio: Hypervised) -> None:
    virtio.pci(ADDRESS)
    virtio.add(ADDRESS)
    with pytest.raises(DeadlineExceeded, match=r"0000:00:06.0 did not come .*no such file"):
        virtio.add("0000:00:06.0")
    with pytest.raises(Refused, match="named by its address"):
        virtio.add(GUID)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (None, "Settings: is missing"),
        ({"VMBusGUID": 7}, "VMBusGUID: should be a string"),
        ([], "should be an object"),
    ],
)
def test_bad_settings_name_the_field(hyperv: Hypervised, settings: Any, error: str) -> None:
    with pytest.raises(InvalidMessage, match=error):
        hyperv.bench.add("VPCIDevice", settings)


@pytest.mark.parametrize("verb", ["Remove", "Update", "PreAdd", "x"])
def test_only_add_is_served(hyperv: Hypervised, verb: str) -> None:
    with pytest.raises(Refused, match=rf'the RequestType "{verb}" is not supported'):
        hyperv.bench.request(verb, "VPCIDevice", {"VMBusGUID": GUID})


def test_a_strict_vm_is_not_asked_and_an_inconsistent_one_does_not_mind(hyperv: Hypervised) -> None:
    enforcer = hyperv.bench.be_strict({})
    enforcer.otherwise = False
    hyperv.vmbus("8a2b:00:00.0")
    hyperv.bench.gate.mark("something earlier")
    hyperv.add()
    assert enforcer.asked == []


ADDRESSES = st.from_regex(r"0000:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", fullmatch=True)


@given(names=st.lists(ADDRESSES, max_size=20))
def test_what_is_there_is_told_in_a_few_words(
    names: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("devices")
    for name in names:
        (folder / name).mkdir(exist_ok=True)
    said = there(str(folder))
    assert said.count(", ") <= 7
    assert (said == "no PCI device") == (not os.listdir(folder))
