"""From the host's controller, LUN and partition to an open device, waiting for it."""

from __future__ import annotations

import time
from typing import NamedTuple

from uvmd.api import Environment
from uvmd.linux import scsi_ids, uevents


class Disk(NamedTuple):
    """A disk, or a partition of one, that is open for reading.

    ``host`` is the guest's number of the controller, the one in all texts and names. While
    ``fd`` is open the device's number cannot come to stand for another disk.
    """

    host: int
    lun: int
    partition: int
    path: str
    fd: int

    @property
    def dm_suffix(self) -> str:
        """How device-mapper names end that belong to it; see spec storage.md 5.4."""
        return f"scsi-contr{self.host}-lun{self.lun}-p{self.partition}"


def lock_name(controller: int, lun: int) -> str:
    """Name the disk for core's lock, by what each request carries."""
    return f"scsi:{controller}:{lun}"


def wait_for_host(env: Environment, controller: int, deadline: float) -> int:
    """Return the number of the SCSI host that is a controller of the VM's host.

    Raises:
        DeadlineExceeded: it did not come.
    """
    platform = env.platform
    return uevents.wait_for(lambda: platform.scsi_host(controller), deadline, f"SCSI controller {controller}")


def wait_for_disk(env: Environment, controller: int, lun: int, partition: int, deadline: float) -> Disk:
    """Return the disk, open; until ``deadline`` at most. Its descriptor is the caller's.

    Raises:
        DeadlineExceeded: it did not come; the text says what was there instead.
        Failed: there is more than one.
        OSError: it is there and cannot be opened.
    """
    sys, dev = env.platform.sys_root, env.platform.dev_root
    host = wait_for_host(env, controller, deadline)
    what = f"SCSI disk {scsi_ids.address(host, lun)}"
    fd, path = uevents.wait_for(
        lambda: scsi_ids.open_disk(host, lun, partition, sys, dev),
        deadline,
        f"{what} partition {partition}" if partition else what,
        seen=lambda: scsi_ids.seen(host, lun, sys),
        about=f"/{scsi_ids.address(host, lun)}/block/",
    )
    return Disk(host, lun, partition, path, fd)


def limit(seconds: float, latest: float) -> float:
    """Return the time that is so many seconds away, or ``latest`` if that is sooner."""
    return min(time.monotonic() + seconds, latest)
