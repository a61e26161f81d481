"""The section ``[plugin.storage_scsi]``."""

from __future__ import annotations

from typing import Annotated, Literal

from uvmd.api import ConfigModel, Field

Seconds = Annotated[float, Field(gt=0, le=200)]


class StorageScsiConfig(ConfigModel):
    """A host gives up on a request after 300 s, so no limit is above 200."""

    #: How long a request waits for its controller, disk and partition.
    device_timeout_s: Seconds = 5.0
    #: How long device-mapper may take for a disk that is there.
    mount_timeout_s: Seconds = 5.0
    #: How long mkfs and cryptsetup may take, each; they are killed then.
    tools_timeout_s: Seconds = 120.0
    #: Whether read-only disks need a hash tree: when a policy is in force, or always.
    verity: Literal["strict", "always"] = "strict"
    #: Whether a disk with something else on it is formatted when a host asks for a file system.
    reformat: bool = True
