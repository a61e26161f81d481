"""``VPCIDevice``: answered when the device that the host has assigned is there (spec storage.md 10).

Nothing is recorded and nothing is to be undone: what uses the device is a container, whose
own request says so. The host sends no Remove.
"""

from __future__ import annotations

import os
import time

from uvmd.api import Context, Field, Found, Handler, Plan, Record, Verb, View, WireModel
from uvmd.linux import uevents

#: So many names of what is there instead fit an error.
_SHOWN = 8


class VpciSettings(WireModel):
    """On Hyper-V a GUID of vmbus; elsewhere, under the same key, a PCI address."""

    vmbus_guid: str = Field("", alias="VMBusGUID")


class VpciDevice(Handler):
    """All of it is finding."""

    settings = VpciSettings

    def identity(self, settings: VpciSettings) -> str:
        return f"vpci:{settings.vmbus_guid.lower()}"

    def find(self, settings: VpciSettings, verb: Verb, ctx: Context) -> Found:
        """Wait for the device.

        Raises:
            Refused: what names it is no GUID, on a virtio platform no PCI address.
            Failed: several devices could be meant.
            DeadlineExceeded: it did not come.
        """
        platform, device = self.env.platform, settings.vmbus_guid
        deadline = min(ctx.deadline, time.monotonic() + self.env.config.device_timeout_s)
        found = uevents.wait_for(
            lambda: platform.pci_path(device),
            deadline,
            f"the PCI device {device}",
            seen=lambda: there(f"{platform.sys_root}/bus/pci/devices"),
        )
        return Found(found)

    def add(self, settings: VpciSettings, found: Found, view: View, record: Record | None) -> Plan:
        return Plan.nothing()


def there(folder: str) -> str:
    """Tell what a folder of sysfs holds, in a few words."""
    names = sorted(os.listdir(folder))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more or "no PCI device"
