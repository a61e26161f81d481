"""The section ``[plugin.cdi]``."""

from __future__ import annotations

from typing import Literal

from uvmd.api import ConfigModel


class CdiConfig(ConfigModel):
    """Where the files are, the weightiest directory last, and what becomes of hooks."""

    directories: list[str] = ["/etc/cdi", "/var/run/cdi"]
    hooks: Literal["refuse", "ignore"] = "refuse"
