"""The section ``[plugin.network]``."""

from __future__ import annotations

from typing import Literal

from uvmd.api import ConfigModel, Field


class NetworkConfig(ConfigModel):
    """Times are seconds; a host gives up on any request after 300."""

    #: How long a request waits for its adapter.
    adapter_timeout_s: float = Field(5.0, gt=0, le=200)
    #: How long a pod waits for a lease when the host gave no address.
    dhcp_timeout_s: float = Field(30.0, gt=0, le=200)
    #: A gateway that no subnet of the adapter contains: a route to it on the link, or (as
    #: the reference does it) its own address with the full prefix on the link.
    gateway_outside_subnet: Literal["route", "address"] = "route"
