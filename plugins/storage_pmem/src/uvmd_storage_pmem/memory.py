"""From the host's device number and mapping to an open device and a part of it, waiting for it."""

from __future__ import annotations

import os
import time
from typing import Final, NamedTuple

from uvmd.api import Context, Environment
from uvmd.errors import Refused
from uvmd.linux import block, devmapper, uevents, verity
from uvmd.linux.verity import VerityInfo
from uvmd_storage_pmem.settings import Mapping, VPMemSettings

SECTOR: Final = 512


class Region(NamedTuple):
    """A device that is open for reading, or a part of it. ``size`` 0: all of it."""

    number: int
    path: str
    fd: int
    offset: int = 0
    size: int = 0

    @property
    def linear_name(self) -> str:
        """The dm-linear device's name; "" for the whole device."""
        return f"dm-linear-pmem{self.number}-{self.offset}-{self.size}" if self.size else ""

    @property
    def source(self) -> str:
        """The node that shows the region; the mount table's source, too."""
        return f"{devmapper.DIRECTORY}/{self.linear_name}" if self.size else self.path


def wait_for_region(env: Environment, settings: VPMemSettings, ctx: Context) -> Region:
    """Return what the request names, with a descriptor that core closes.

    Raises:
        DeadlineExceeded: the device did not come; the text says which are there.
        Refused: the mapping does not lie on it.
        OSError: it is there and cannot be opened.
    """
    dev = env.platform.dev_root
    path = f"{dev}/pmem{settings.number}"
    deadline = min(time.monotonic() + env.config.device_timeout_s, ctx.deadline)
    fd = ctx.keep(uevents.wait_for(lambda: block.open_device(path), deadline, path, seen=lambda: _seen(dev)))
    if settings.mapping is None:
        return Region(settings.number, path, fd)
    _check(settings.mapping, block.size_bytes(fd))
    return Region(settings.number, path, fd, settings.mapping.offset, settings.mapping.size)


def _seen(dev: str) -> str:
    return ", ".join(sorted(name for name in os.listdir(dev) if name.startswith("pmem"))) or "no pmem device"


def _check(mapping: Mapping, device_bytes: int) -> None:
    if not mapping.size or mapping.size % SECTOR or mapping.offset % SECTOR:
        raise Refused(
            f"VPMemDevice: offset and size of MappingInfo are no multiples of {SECTOR}, or the size is 0"
        )
    if mapping.offset + mapping.size > device_bytes:
        raise Refused(f"VPMemDevice: MappingInfo ends behind the device's {device_bytes} bytes")


def read_verity(region: Region) -> VerityInfo:
    """Read the hash tree's superblock of a region. Raises Failed."""
    return verity.read_info(region.fd, region.offset, region.size or None)
