"""What a host sends. Absent, null and zero are the same; ``{}`` is the first disk there is."""

from __future__ import annotations

from uvmd.api import U8, U64, Field, Items, WireModel


class VirtualDiskSettings(WireModel):
    """MappedVirtualDisk. V1 hosts leave out ``Encrypted`` when they remove a disk."""

    mount_path: str = Field("", alias="MountPath")
    controller: U8 = Field(0, alias="Controller")
    lun: U8 = Field(0, alias="Lun")
    #: 0 is the whole disk.
    partition: U64 = Field(0, alias="Partition")
    read_only: bool = Field(False, alias="ReadOnly")
    encrypted: bool = Field(False, alias="Encrypted")
    options: Items[str] = Field((), alias="Options")
    block_dev: bool = Field(False, alias="BlockDev")
    ensure_filesystem: bool = Field(False, alias="EnsureFilesystem")
    filesystem: str = Field("", alias="Filesystem")


class ScsiDeviceSettings(WireModel):
    """SCSIDevice."""

    controller: U8 = Field(0, alias="Controller")
    lun: U8 = Field(0, alias="Lun")
