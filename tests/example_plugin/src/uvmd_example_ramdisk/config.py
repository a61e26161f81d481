"""The section ``[plugin.ramdisk]``."""

from __future__ import annotations

from uvmd.api import ConfigModel


class RamdiskConfig(ConfigModel):
    """How much memory one ramdisk may take."""

    max_mib: int = 1024
