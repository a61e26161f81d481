"""What the plugin declares. Thin, because it is imported at every start of the daemon."""

from __future__ import annotations

from collections.abc import Iterable

from uvmd.api import Requirement, ResourceType, Verb, hookimpl


@hookimpl
def config_model() -> str:
    """Time limits, and what is asked of disks besides what a host asks."""
    return "uvmd_storage_scsi.config:StorageScsiConfig"


@hookimpl
def resource_types() -> Iterable[ResourceType]:
    """A disk at a path, added and removed; and a disk that is about to be taken out."""
    return [
        ResourceType(
            "MappedVirtualDisk",
            "uvmd_storage_scsi.virtual_disk:VirtualDisk",
            points={
                Verb.ADD: ("mount_device", "rw_mount_device", "mount_blockdev"),
                Verb.REMOVE: ("unmount_device", "rw_unmount_device", "unmount_blockdev"),
            },
        ),
        # Unplugging follows the last unmount and must be possible in a VM that takes no other change.
        ResourceType(
            "SCSIDevice",
            "uvmd_storage_scsi.unplug:ScsiDevice",
            verbs=(Verb.REMOVE,),
            points={Verb.REMOVE: ()},
            latched=False,
        ),
    ]


@hookimpl
def requirements() -> Iterable[Requirement]:
    """What disks need besides a controller."""
    return [
        Requirement("filesystem", "ext4", "layers and scratch disks"),
        Requirement("dm-target", "verity", "layers with a hash tree"),
        Requirement("dm-target", "crypt", "encrypted scratch disks", optional=True),
        Requirement("dm-target", "integrity", "encrypted scratch disks", optional=True),
        Requirement("program", "cryptsetup", "encrypted scratch disks", optional=True),
        Requirement("program", "mkfs.ext4", "disks that are to be formatted", optional=True),
        Requirement("program", "mkfs.xfs", "encrypted scratch disks, xfs disks", optional=True),
    ]
