"""Which interface is the host's adapter? Told by sysfs, and waited for (spec containers.md 14.2)."""

from __future__ import annotations

import errno
import os
import re

from uvmd.api import Platform
from uvmd.errors import Failed, Refused
from uvmd.linux import uevents
from uvmd_network.settings import AdapterSettings, adapter_key, is_pci_address, mac_key

#: So many names of what is there instead fit an error.
_SHOWN = 8


def wait_for_interface(platform: Platform, settings: AdapterSettings, deadline: float) -> str:
    """Return the name of the adapter's interface in the VM's network namespace.

    On Hyper-V it is the one of the vmbus device, or (``VPCIAssigned``) of the PCI device
    behind it. Elsewhere ``ID`` is a PCI address or a MAC address, or ``MacAddress`` says it.

    Raises:
        Refused: the settings do not say which one.
        Failed: more than one could be meant.
        DeadlineExceeded: it is not there by ``deadline`` (monotonic clock).
    """
    key = adapter_key(settings.id, platform.name)
    mac = mac_key(settings.mac)
    if platform.name == "hyperv":
        what = f"the {'PCI' if settings.assigned else 'vmbus'} network adapter {key}"
    elif is_pci_address(key):
        what = f"the network adapter at PCI address {key}"
    else:
        mac = mac_key(key) or mac
        what = f"the network adapter with MAC address {mac}"
        if not mac:
            raise Refused("Network: neither MacAddress nor ID is a MAC address, and ID is no PCI address")

    def look() -> str:
        if platform.name == "hyperv":
            return _of_vmbus(platform, key, settings.assigned)
        if is_pci_address(key):
            return _of_pci(platform.pci_path(key))
        return _with_mac(f"{platform.sys_root}/class/net", mac)

    seen = f"{platform.sys_root}/class/net"
    return uevents.wait_for(look, deadline, what, seen=lambda: _there(seen))


def _of_vmbus(platform: Platform, guid: str, assigned: bool) -> str:
    if assigned:
        return _of_pci(platform.pci_path(guid))
    return _only([f"{platform.sys_root}/bus/vmbus/devices/{guid}/net"])


def _of_pci(device: str) -> str:
    """The interface below a PCI device: its own, or (virtio) of the device that it carries."""
    inner = sorted(name for name in os.listdir(device) if re.fullmatch(r"virtio[0-9]+", name))
    return _only([f"{device}/net", *(f"{device}/{name}/net" for name in inner)])


def _only(folders: list[str]) -> str:
    """The one entry of those of the folders that are there."""
    names: list[str] = []
    for folder in folders:
        try:
            names += os.listdir(folder)
        except FileNotFoundError:
            continue  # not there yet, or gone in between: another look
    if len(names) > 1:
        raise Failed(f"more than one network interface in {folders[0]}: {', '.join(sorted(names))}")
    if not names:
        raise FileNotFoundError(errno.ENOENT, "no network interface", folders[0])
    return names[0]


def _with_mac(folder: str, mac: str) -> str:
    found = []
    for name in sorted(os.listdir(folder)):
        try:
            with open(f"{folder}/{name}/address", encoding="ascii") as file:
                if file.read(64).strip() == mac:
                    found.append(name)
        except OSError:
            continue  # it went meanwhile
    if len(found) > 1:
        # What is stacked upon an adapter (a bond, a VLAN) may have its address but is no device.
        found = [name for name in found if os.path.exists(f"{folder}/{name}/device")] or found
    if len(found) > 1:
        raise Failed(f"more than one network interface has the MAC address {mac}: {', '.join(found)}")
    if not found:
        raise FileNotFoundError(errno.ENOENT, "no interface with this address", folder)
    return found[0]


def _there(folder: str) -> str:
    names = sorted(os.listdir(folder))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more or "no network interface"
