"""What the plugin declares. Thin, because it is imported at every start of the daemon."""

from __future__ import annotations

from collections.abc import Iterable

from uvmd.api import Named, Requirement, ResourceType, Verb, hookimpl


@hookimpl
def config_model() -> str:
    """How long adapters and leases may take, and what is done about a gateway outside the subnet."""
    return "uvmd_network.config:NetworkConfig"


@hookimpl
def resource_types() -> Iterable[ResourceType]:
    """Network: asks nothing (core's list of exemptions says why)."""
    points = {Verb.ADD: (), Verb.REMOVE: ()}
    return [ResourceType("Network", "uvmd_network.handler:Network", points=points, latched=False)]


@hookimpl
def container_network() -> Iterable[Named]:
    """The provider; it shares one table of namespaces with the handler."""
    return [Named("network", "uvmd_network.provider:Provider")]


@hookimpl
def requirements() -> Iterable[Requirement]:
    """Netlink does the rest."""
    return [
        Requirement("feature", "net", "adapters in pods"),
        Requirement("program", "udhcpc|busybox", "adapters without addresses, by DHCP", optional=True),
    ]
