"""Facts about block devices. A device is there when it can be opened; its name proves nothing."""

from __future__ import annotations

import errno
import os
import stat


def device_number(device: int | str) -> tuple[int, int]:
    """Return major and minor of a block device, by descriptor or path.

    Raises:
        OSError: ENOTBLK for anything else than a block device.
    """
    status = os.stat(device)
    if not stat.S_ISBLK(status.st_mode):
        raise OSError(errno.ENOTBLK, os.strerror(errno.ENOTBLK), device)
    return os.major(status.st_rdev), os.minor(status.st_rdev)


def open_device(path: str) -> int:
    """Open a block device for reading; the descriptor is close-on-exec.

    Raises:
        OSError: ENXIO for a while after the device was added, when its node is there
            and the device behind it is not; ENOTBLK if it is no block device.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        device_number(fd)
    except BaseException as error:
        os.close(fd)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, path) from None
        raise
    return fd


def size_bytes(fd: int) -> int:
    """Return the size of an open device."""
    return os.lseek(fd, 0, os.SEEK_END)


def partition_name(disk: str, partition: int) -> str:
    """Return the kernel's name of a partition: ``sda1``, ``nvme0n1p1``; 0 is the disk itself."""
    if not partition:
        return disk
    return f"{disk}p{partition}" if disk[-1:].isdigit() else f"{disk}{partition}"
