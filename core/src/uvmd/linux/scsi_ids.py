"""SCSI disks by address: host, channel, target and LUN, of which the middle two are 0.

Names such as ``sda`` follow the order in which disks came and mean nothing to a host; an
address does (spec storage.md 3.2).
"""

from __future__ import annotations

import os

from uvmd.errors import Failed
from uvmd.linux import block

SYS = "/sys"
DEV = "/dev"


def address(host: int, lun: int) -> str:
    """Return an address as sysfs writes it."""
    return f"{host}:0:0:{lun}"


def _device(host: int, lun: int, sys: str) -> str:
    return f"{sys}/bus/scsi/devices/{address(host, lun)}"


def find_disk(host: int, lun: int, sys: str = SYS) -> str:
    """Return the kernel's name of a disk.

    Raises:
        OSError: ENOENT while there is none.
        Failed: there is more than one.
    """
    folder = f"{_device(host, lun, sys)}/block"
    names = sorted(os.listdir(folder))
    if not names:
        raise FileNotFoundError(2, os.strerror(2), folder)
    if len(names) > 1:
        raise Failed(f'more than one block device could match SCSI ID "{address(host, lun)}"')
    return names[0]


def open_disk(host: int, lun: int, partition: int, sys: str = SYS, dev: str = DEV) -> tuple[int, str]:
    """Open a disk, or one partition of it, for reading; return descriptor and path.

    Raises:
        OSError: ENOENT or ENXIO while it is not there.
        Failed: it is not a single one.
    """
    disk = find_disk(host, lun, sys)
    name = block.partition_name(disk, partition)
    if partition:
        os.stat(f"{_device(host, lun, sys)}/block/{disk}/{name}")
    path = f"{dev}/{name}"
    return block.open_device(path), path


def paths_of(host: int, lun: int, sys: str = SYS, dev: str = DEV) -> list[str]:
    """Return the paths of a LUN's disk and its partitions; none if it is not there."""
    folder = f"{_device(host, lun, sys)}/block"
    found = []
    try:
        for disk in sorted(os.listdir(folder)):
            found.append(f"{dev}/{disk}")
            parts = (name for name in os.listdir(f"{folder}/{disk}") if name.startswith(disk))
            found += [f"{dev}/{name}" for name in sorted(parts)]
    except (FileNotFoundError, NotADirectoryError):
        pass
    return found


def seen(host: int, lun: int, sys: str = SYS) -> str:
    """Say what is there instead of a disk, for an error: its partitions, or the host's LUNs."""
    parts = [path.rpartition("/")[2] for path in paths_of(host, lun, sys)]
    if parts:
        return f"{parts[0]} with {', '.join(parts[1:]) or 'no partitions'}"
    names = os.listdir(f"{sys}/bus/scsi/devices")
    luns = sorted(int(name.split(":")[3]) for name in names if name.startswith(f"{host}:0:0:"))
    return f"LUN {', '.join(map(str, luns))} on SCSI host {host}" if luns else f"no LUN on SCSI host {host}"


def unplug(host: int, lun: int, sys: str = SYS) -> bool:
    """Have the kernel forget a disk, as before it is taken out; False if it is not there.

    Raises OSError.
    """
    try:
        fd = os.open(f"{_device(host, lun, sys)}/delete", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        os.write(fd, b"1\n")
    finally:
        os.close(fd)
    return True
