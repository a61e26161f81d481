"""The section ``[plugin.plan9]``."""

from __future__ import annotations

from uvmd.api import ConfigModel, Field


class Plan9Config(ConfigModel):
    """How long each step may take that waits for the host's server."""

    dial_timeout_s: float = Field(20.0, gt=0, le=100)
    mount_timeout_s: float = Field(10.0, gt=0, le=100)
    unmount_timeout_s: float = Field(10.0, gt=0, le=100)
