"""What a request to add a disk must be, by its settings alone: nothing is looked at here."""

from __future__ import annotations

import re
from typing import Final

from uvmd.errors import PolicyDenied, Refused
from uvmd.linux import paths
from uvmd_storage_scsi.settings import VirtualDiskSettings

MAX_PARTITION: Final = 255
_FILESYSTEM: Final = r"[a-zA-Z0-9._-]{0,32}"


def check_places(settings: VirtualDiskSettings) -> None:
    """Refuse a path that could be read in two ways, and a number that no partition has.

    Raises Refused.
    """
    path = settings.mount_path
    if path and (not paths.is_clean_absolute(path) or path == "/"):
        raise Refused("MappedVirtualDisk: MountPath is not a clean absolute path")
    if settings.partition > MAX_PARTITION:
        raise Refused(f"MappedVirtualDisk: Partition is not between 0 and {MAX_PARTITION}")


def check_add(settings: VirtualDiskSettings, host: int, *, strict: bool, verity: bool) -> None:
    """Check what an Add asks for.

    Raises:
        Refused, PolicyDenied: it contradicts itself, or a strict VM does not do it.
    """
    if not re.fullmatch(_FILESYSTEM, settings.filesystem):
        raise Refused("MappedVirtualDisk: Filesystem is not a name")
    if strict:
        _check_options(settings, host)
    if verity and settings.filesystem not in ("", "ext4"):
        raise Refused("filesystem must be ext4 for read-only scsi mounts")
    if settings.block_dev:
        return  # the rest says how to mount
    if settings.encrypted:
        _check_encrypted(settings)
    if settings.ensure_filesystem and settings.filesystem not in ("ext4", "xfs"):
        raise Refused(f"unsupported filesystem {settings.filesystem} requested for device")


def _check_options(settings: VirtualDiskSettings, host: int) -> None:
    expected = ("ro",) if settings.read_only else ()
    if settings.options != expected:
        given, wanted = ",".join(settings.options), ",".join(expected)
        raise PolicyDenied(
            f"mounting scsi device controller {host} lun {settings.lun} onto {settings.mount_path} "
            f'with mount options "{given}" denied by policy: '
            f'expected "{wanted}" (mvd.ReadOnly={str(settings.read_only).lower()})'
        )


def _check_encrypted(settings: VirtualDiskSettings) -> None:
    if settings.read_only:
        raise Refused("MappedVirtualDisk: ReadOnly and Encrypted exclude each other, the key is always new")
    if not settings.ensure_filesystem or settings.filesystem != "xfs":
        # Sectors that were never written do not verify; of the two only mkfs.xfs reads none.
        raise Refused("MappedVirtualDisk: Encrypted needs EnsureFilesystem and the Filesystem xfs")
