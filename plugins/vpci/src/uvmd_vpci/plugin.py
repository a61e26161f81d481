"""What the plugin declares. Thin, because it is imported at every start of the daemon."""

from __future__ import annotations

from collections.abc import Iterable

from uvmd.api import ResourceType, Verb, hookimpl


@hookimpl
def config_model() -> str:
    """How long a device may take."""
    return "uvmd_vpci.config:VpciConfig"


@hookimpl
def resource_types() -> Iterable[ResourceType]:
    """VPCIDevice: Add only, asks nothing and changes nothing (core's list of exemptions says why)."""
    return [
        ResourceType(
            "VPCIDevice",
            "uvmd_vpci.device:VpciDevice",
            verbs=(Verb.ADD,),
            points={Verb.ADD: ()},
            latched=False,
        )
    ]
