"""The section ``[plugin.storage_pmem]``."""

from __future__ import annotations

from typing import Annotated, Literal

from uvmd.api import ConfigModel, Field

Seconds = Annotated[float, Field(gt=0, le=200)]


class StoragePmemConfig(ConfigModel):
    """A host gives up on a request after 300 s, so no limit is above 200."""

    #: How long a request waits for its device.
    device_timeout_s: Seconds = 5.0
    #: How long device-mapper may take for a device that is there.
    mount_timeout_s: Seconds = 5.0
    #: Whether layers need a hash tree: when a policy is in force, or always.
    verity: Literal["strict", "always"] = "strict"
    #: Map files of layers without a hash tree straight from the device, past the page cache.
    dax: bool = False
