"""Hardware that comes and goes: SCSI disks, persistent memory, PCI devices."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uvmd.api.testing.guest import profiles
from uvmd.api.testing.guest.errors import GuestError

if TYPE_CHECKING:
    from uvmd.api.testing.guest.vm import Vm

_numbers = itertools.count(1)


def _scsi_block_device(controller: int, target: int, lun: int) -> str:
    """Return the name of the block device at an address, or nothing; runs in the guest."""
    import glob
    import os

    hosts = []
    for host in os.listdir("/sys/class/scsi_host"):
        path = os.path.realpath(f"/sys/class/scsi_host/{host}")
        if "/virtio" in path:
            hosts.append((path.split("/virtio")[0], int(host[4:])))
    if controller >= len(hosts):
        return ""
    number = sorted(hosts)[controller][1]
    found = glob.glob(f"/sys/bus/scsi/devices/{number}:0:{target}:{lun}/block/*")
    return (
        os.path.basename(found[0]) if found and os.path.exists(f"/dev/{os.path.basename(found[0])}") else ""
    )


def _pci_device(vendor: str, device: str) -> str:
    import os

    for address in os.listdir("/sys/bus/pci/devices"):
        words = []
        for name in ("vendor", "device"):
            with open(f"/sys/bus/pci/devices/{address}/{name}", encoding="ascii") as file:
                words.append(file.read().strip())
        if words == [vendor, device]:
            return address
    return ""


def _pmem_devices() -> list[str]:
    import os

    return sorted(name for name in os.listdir("/sys/block") if name.startswith("pmem"))


class Device:
    """A hot-plugged device. ``name`` is its QEMU id."""

    def __init__(self, guest: Vm, name: str) -> None:
        self._guest = guest
        self.name = name
        self._after: list[tuple[str, dict[str, Any]]] = []

    def plug(self, **arguments: Any) -> None:
        """Add it; the guest sees it some time later."""
        self._guest.machine.qmp("device_add", id=self.name, **arguments)

    def after_removal(self, command: str, **arguments: Any) -> None:
        """Run a QMP command once the device is gone: its back end goes with it."""
        self._after.append((command, arguments))

    def remove(self, timeout_s: float = 20) -> None:
        """Pull it out, as a host does, and wait until it is gone."""
        qmp = self._guest.machine.qmp
        qmp("device_del", id=self.name)
        qmp.wait_for_event("DEVICE_DELETED", timeout_s, device=self.name)
        for command, arguments in self._after:
            qmp(command, **arguments)


class Disk(Device):
    """A SCSI disk at controller, target, LUN."""

    def __init__(self, guest: Vm, controller: int, target: int, lun: int) -> None:
        super().__init__(guest, f"disk{next(_numbers)}")
        self.controller, self.target, self.lun = controller, target, lun

    def wait(self, timeout_s: float = 20) -> str:
        """Return the disk's path in the guest once it is there."""
        address = (self.controller, self.target, self.lun)
        name = _wait(self._guest, _scsi_block_device, address, timeout_s, f"SCSI disk {address}")
        return f"/dev/{name}"


class PciDevice(Device):
    """A PCI device on one of the spare ports."""

    ids: tuple[str, str] = ("", "")

    def wait(self, timeout_s: float = 20) -> str:
        """Return its PCI address in the guest once it is there."""
        return _wait(self._guest, _pci_device, self.ids, timeout_s, f"PCI device {':'.join(self.ids)}")


class Pmem(Device):
    """Persistent memory; ``known`` are the guest's pmem devices before it came."""

    known: frozenset[str] = frozenset()

    def wait(self, timeout_s: float = 20) -> str:
        """Return its block device in the guest once it is there."""
        deadline = time.monotonic() + timeout_s
        while not (new := set(self._guest.call(_pmem_devices)) - self.known):
            if time.monotonic() > deadline:
                raise GuestError(f"no persistent memory within {timeout_s:g} s")
            time.sleep(0.02)
        return f"/dev/{new.pop()}"


def add_disk(guest: Vm, file: Path, *, controller: int, target: int, lun: int, read_only: bool) -> Disk:
    """Hot-plug a raw image as a SCSI disk."""
    disk = Disk(guest, controller, target, lun)
    node = f"node-{disk.name}"
    back = {"driver": "file", "filename": str(file)}
    guest.machine.qmp("blockdev-add", driver="raw", node_name=node, read_only=read_only, file=back)
    disk.after_removal("blockdev-del", node_name=node)
    bus = f"{profiles.CONTROLLERS[controller]}.0"
    disk.plug(driver="scsi-hd", bus=bus, **{"scsi-id": target}, lun=lun, drive=node)
    return disk


def add_pmem(guest: Vm, file: Path, *, port: str, read_only: bool) -> Pmem:
    """Hot-plug a file as persistent memory: nvdimm in that profile, virtio-pmem elsewhere."""
    memory = Pmem(guest, f"pmem{next(_numbers)}")
    memory.known = frozenset(guest.call(_pmem_devices))
    back = f"mem-{memory.name}"
    guest.machine.qmp(
        "object-add",
        qom_type="memory-backend-file",
        id=back,
        size=file.stat().st_size,
        **{"mem-path": str(file)},
        share=not read_only,
        readonly=read_only,
    )
    memory.after_removal("object-del", id=back)
    if guest.profile.nvdimm:
        memory.plug(driver="nvdimm", memdev=back, unarmed=read_only)
    else:
        memory.plug(driver="virtio-pmem-pci", memdev=back, bus=port)
    return memory


def add_pci(guest: Vm, driver: str, *, port: str, ids: tuple[str, str], **arguments: Any) -> PciDevice:
    """Hot-plug a PCI device on one of the spare ports."""
    device = PciDevice(guest, f"pci{next(_numbers)}")
    device.ids = ids
    device.plug(driver=driver, bus=port, **arguments)
    return device


def _wait(guest: Vm, find: Any, arguments: tuple[Any, ...], timeout_s: float, what: str) -> str:
    deadline = time.monotonic() + timeout_s
    while not (found := guest.call(find, *arguments)):
        if time.monotonic() > deadline:
            raise GuestError(f"{what} did not appear in the guest within {timeout_s:g} s")
        time.sleep(0.02)
    return str(found)
