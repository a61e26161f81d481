"""How a kind of VM shows its devices: Hyper-V by instance GUIDs on vmbus, others by PCI.

Both answer the same questions; a caller that has to wait asks again (``uevents.wait_for``)
while the answer is FileNotFoundError. The roots of /sys and /dev are parameters for tests.

The Hyper-V side was written from a description and tested on constructed trees; it has
not run on Hyper-V.
"""

from __future__ import annotations

import errno
import os
import re
from typing import Final, NamedTuple

from uvmd.errors import Failed, Refused

CONTROLLERS: Final = 4

#: Instances of a host's SCSI controllers 0 to 3.
_CONTROLLER_GUIDS: Final = (
    "df6d0690-79e5-55b6-a5ec-c1e2f77f580a",
    "0110f83b-de10-5172-a266-78bca56bf50a",
    "b5d2d8d4-3a75-51bf-945b-3444dc6b8579",
    "305891a9-b251-5dfe-91a2-c25d9212275b",
)
_GUID: Final = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_BUS: Final = r"pci([0-9a-f]{4,8}:[0-9a-f]{2})"
#: Device number of a SCSI host in the virtio standard, 5.
_VIRTIO_SCSI: Final = 8
_PCI_ADDRESS: Final = r"([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])"


def _not_there(text: str, path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, text, path)


def _require_controller(controller: int) -> None:
    if not 0 <= controller < CONTROLLERS:
        raise Refused(f"SCSI controller {controller}: there are 0 to {CONTROLLERS - 1}")


class Hyperv:
    """A VM on Hyper-V."""

    name = "hyperv"

    def __init__(self, sys_root: str = "/sys", dev_root: str = "/dev") -> None:
        self.sys_root = sys_root
        self.dev_root = dev_root

    def vmbus_path(self, guid: str) -> str:
        """Return the folder of a vmbus device, whether or not it is there.

        Raises:
            Refused: not a GUID. What is joined to a path must not be able to leave it.
        """
        if not re.fullmatch(_GUID, guid.lower()):
            raise Refused("a vmbus device is named by a GUID")
        return f"{self.sys_root}/bus/vmbus/devices/{guid.lower()}"

    def scsi_host(self, controller: int) -> int:
        """Return the number of the SCSI host that is the host's controller of this index.

        Raises:
            Refused: there is no such index.
            FileNotFoundError: it is not there (yet).
            Failed: what is there is named otherwise.
        """
        _require_controller(controller)
        folder = self.vmbus_path(_CONTROLLER_GUIDS[controller])
        for name in sorted(os.listdir(folder)):
            if name.startswith("host"):
                number = name.removeprefix("host")
                if not re.fullmatch(r"[0-9]{1,3}", number) or int(number) > 255:
                    raise Failed(f"failed to parse controller number from {name}: not 0 to 255")
                return int(number)
        raise _not_there(f"host<N> directory not found inside {folder}", folder)

    def pci_path(self, device: str) -> str:
        """Return the sysfs folder of the PCI device that a vmbus GUID stands for.

        Of a device with several functions it is the first, function 0.

        Raises:
            Refused: not a GUID.
            FileNotFoundError: it is not there (yet).
            Failed: more than one device could be meant.
        """
        folder = self.vmbus_path(device)
        buses = sorted(name for name in os.listdir(folder) if re.fullmatch(_BUS, name))
        if len(buses) > 1:
            raise Failed(f'more than one file could exist for pattern "{folder}/pci*"')
        if not buses:
            raise _not_there("no PCI bus", folder)
        bus = f"{folder}/{buses[0]}"
        prefix = buses[0].removeprefix("pci") + ":"
        functions = sorted(
            name for name in os.listdir(bus) if name.startswith(prefix) and re.fullmatch(_PCI_ADDRESS, name)
        )
        if len({name.partition(".")[0] for name in functions}) > 1:
            raise Failed(f'more than one file could exist for pattern "{bus}/{prefix}*"')
        if not functions:
            raise _not_there("no PCI device", bus)
        return f"{bus}/{functions[0]}"


class _Controller(NamedTuple):
    """A virtio device with SCSI disks, and the number of its host: -1 while it has none."""

    name: str
    host: int


class Virtio:
    """A VM of QEMU, Firecracker or Cloud Hypervisor: devices on PCI."""

    name = "virtio"

    def __init__(self, sys_root: str = "/sys", dev_root: str = "/dev") -> None:
        self.sys_root = sys_root
        self.dev_root = dev_root
        #: The devices of the bus when it was looked at last, and the controllers among them.
        self._known: tuple[frozenset[tuple[str, int]], list[_Controller]] = (frozenset(), [])

    def scsi_host(self, controller: int) -> int:
        """Return the number of the SCSI host that is the host's controller of this index.

        Controllers are counted in the order of their PCI addresses: that of the host's
        configuration, which the kernel's own numbers are not.

        Raises:
            Refused: there is no such index.
            FileNotFoundError: it is not there (yet), or its driver has not come so far.
        """
        _require_controller(controller)
        folder = f"{self.sys_root}/bus/virtio/devices"
        there = self._controllers(folder)
        if controller >= len(there) or there[controller].host < 0:
            seen = ", ".join("no host yet" if one.host < 0 else f"host {one.host}" for one in there)
            raise _not_there(f"virtio-scsi controllers: {seen or 'none'}", folder)
        return there[controller].host

    def _controllers(self, folder: str) -> list[_Controller]:
        # An inode number of sysfs stands for one device, and its host's folder for its driver.
        with os.scandir(folder) as entries:
            devices = frozenset((entry.name, entry.inode()) for entry in entries)
        known, controllers = self._known
        if devices == known and all(
            os.path.isdir(f"{folder}/{one.name}/host{one.host}") for one in controllers
        ):
            return controllers
        found = []
        for name, _ in devices:
            try:
                host = self._host_of(f"{folder}/{name}")
                if host is None:
                    continue
                where = os.path.basename(os.path.dirname(os.path.realpath(f"{folder}/{name}")))
            except (FileNotFoundError, NotADirectoryError):
                continue  # it went meanwhile
            found.append((self._pci_order(where), _Controller(name, host)))
        controllers = [one for _, one in sorted(found)]
        self._known = devices, controllers
        return controllers

    @staticmethod
    def _host_of(device: str) -> int | None:
        """The SCSI host of a virtio device, -1 if it has none yet, None if it is no controller."""
        for name in os.listdir(device):
            if re.fullmatch(r"host[0-9]+", name):
                return int(name.removeprefix("host"))
        with open(f"{device}/device", encoding="ascii") as file:
            return -1 if int(file.read(), 16) == _VIRTIO_SCSI else None

    @staticmethod
    def _pci_order(name: str) -> tuple[int, tuple[int, ...], str]:
        """PCI addresses by number, and after them what lies on another bus."""
        if not re.fullmatch(_PCI_ADDRESS, name):
            return 1, (), name
        return 0, tuple(int(part, 16) for part in re.split("[:.]", name)), name

    def pci_path(self, device: str) -> str:
        """Return the sysfs folder of the PCI function ``DDDD:BB:DD.F``.

        Raises:
            Refused: not such an address.
            FileNotFoundError: it is not there (yet).
        """
        if not re.fullmatch(_PCI_ADDRESS, device.lower()):
            raise Refused("a PCI device is named by its address, as 0000:00:00.0")
        path = f"{self.sys_root}/bus/pci/devices/{device.lower()}"
        os.lstat(path)
        return path


def find_platform(sys_root: str = "/sys", dev_root: str = "/dev") -> Hyperv | Virtio:
    """Tell the kind of VM by the buses that the kernel shows."""
    kind = Hyperv if os.path.isdir(f"{sys_root}/bus/vmbus") else Virtio
    return kind(sys_root, dev_root)
