"""The section ``[plugin.vpci]``."""

from __future__ import annotations

from uvmd.api import ConfigModel, Field


class VpciConfig(ConfigModel):
    """How long a request waits for its device; a host gives up on any request after 300 s."""

    device_timeout_s: float = Field(60.0, gt=0, le=220)
