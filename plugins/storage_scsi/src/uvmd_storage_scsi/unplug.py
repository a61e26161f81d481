"""``SCSIDevice``: the guest lets go of a disk before the host takes it out."""

from __future__ import annotations

import logging

from uvmd.api import Answers, Context, Found, Handler, Plan, Record, Undo, Verb, View
from uvmd.errors import InUse
from uvmd.linux import scsi_ids
from uvmd_storage_scsi import disks
from uvmd_storage_scsi.settings import ScsiDeviceSettings

log = logging.getLogger(__name__)


class ScsiDevice(Handler):
    """Remove only; a disk that is not there is removed already."""

    settings = ScsiDeviceSettings

    def identity(self, settings: ScsiDeviceSettings) -> str:
        return disks.lock_name(settings.controller, settings.lun)

    def find(self, settings: ScsiDeviceSettings, verb: Verb, ctx: Context) -> Found:
        """Tell which devices go with the LUN."""
        platform = self.env.platform
        try:
            host = platform.scsi_host(settings.controller)
        except OSError:
            return Found(None, ())
        found = scsi_ids.paths_of(host, settings.lun, platform.sys_root, platform.dev_root)
        return Found(host, tuple(found))

    def remove(self, settings: ScsiDeviceSettings, found: Found, view: View, record: Record | None) -> Plan:
        host, devices = found
        if host is None:
            return Plan.nothing()
        held = [mount.target for device in devices for mount in view.mounts.of_source(device)]
        address = scsi_ids.address(host, settings.lun)
        if held and view.strict:
            raise InUse(f"SCSI disk {address} is still mounted at {', '.join(held)}")
        if held:
            log.warning(
                "a disk is unplugged while it is mounted, ignoring", extra={"disk": address, "at": held}
            )

        def apply(undo: Undo, answers: Answers) -> None:
            # Only afterwards: one that was refused has changed nothing.
            if scsi_ids.unplug(host, settings.lun, self.env.platform.sys_root):
                undo.point_of_no_return(f"unplug SCSI disk {address}")

        return Plan((), apply)
