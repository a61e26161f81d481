"""What an adapter shall look like: addresses, routes and rules, worked out before anything is done.

Reads settings only, so that a request that cannot be carried out is refused before its
adapter is waited for. A layout is kept as JSON: it is also what a removal takes away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, NamedTuple

from uvmd.errors import Refused
from uvmd_network.settings import IPConfig, RouteSettings

#: Where the routes of further adapters go, who looks there, and how early (spec 14.5).
POLICY_TABLE: Final = 101
POLICY_PRIORITY: Final = 5
LOW_METRIC: Final = 500
MAIN_TABLE: Final = 254

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network


class Address(NamedTuple):
    """An address on the link."""

    address: str
    prefix: int


class Route(NamedTuple):
    """A route over the link; ``gateway`` is empty for what is reached directly.

    ``metric`` 0 leaves it to the kernel. ``on_link``: of a gateway, reached without one.
    """

    destination: str
    gateway: str = ""
    metric: int = 0
    table: int = MAIN_TABLE
    on_link: bool = False


class Rule(NamedTuple):
    """Packets from ``source`` are routed by ``table``."""

    source: str
    table: int = POLICY_TABLE
    priority: int = POLICY_PRIORITY


class Layout(NamedTuple):
    """All that belongs to one adapter, in the order in which it is set up."""

    addresses: tuple[Address, ...] = ()
    rules: tuple[Rule, ...] = ()
    routes: tuple[Route, ...] = ()

    def beside(self, taken: Iterable[Route]) -> Layout:
        """Return the layout with another table for its rules if routes in its own would clash.

        All further adapters share one table as long as their routes differ, which two
        default routes of one metric do not.
        """
        if not self.rules:
            return self
        there = {(route.table, route.destination, route.metric) for route in taken}
        table = self.rules[0].table
        while any((table, route.destination, route.metric) in there for route in self.routes):
            table += 1
        return self._replace(
            rules=tuple(rule._replace(table=table) for rule in self.rules),
            routes=tuple(route._replace(table=table) for route in self.routes),
        )

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {field: [list(one) for one in getattr(self, field)] for field in self._fields}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Layout:
        """Return what :meth:`as_json` came from."""
        return cls(
            tuple(Address(*one) for one in value["addresses"]),
            tuple(Rule(*one) for one in value["rules"]),
            tuple(Route(*one) for one in value["routes"]),
        )


def plan_layout(configs: Iterable[IPConfig], routes: Iterable[RouteSettings], *, low_metric: bool) -> Layout:
    """Work the layout out (spec containers.md 14.5).

    Args:
        low_metric: not the pod's first adapter: routes of its own table, and rules that
            send there what comes from its addresses.

    Raises:
        Refused: an address, prefix or gateway that is none; names the entry.
    """
    addresses = [_address(config, f"IPConfigs[{at}]") for at, config in enumerate(configs)]
    planned = [_route(route, low_metric, f"Routes[{at}]") for at, route in enumerate(routes)]
    rules = [Rule(one.address) for one in addresses] if low_metric else []
    return Layout(tuple(addresses), tuple(rules), tuple(route for route in planned if route))


def full_prefix(address: str) -> int:
    """The prefix length that is one address: 32 or 128."""
    return 128 if ":" in address else 32


def _parsed(text: str, where: str) -> IPAddress:
    try:
        if "%" in text:  # a zone is not ours to choose
            raise ValueError
        return ip_address(text)
    except ValueError:
        raise Refused(f"Network: {where} is not an IP address") from None


def _address(config: IPConfig, where: str) -> Address:
    address = _parsed(config.address, f"{where}.IPAddress")
    if config.prefix_length > address.max_prefixlen:
        raise Refused(f"Network: {where}.PrefixLength is over {address.max_prefixlen}")
    return Address(str(address), config.prefix_length)


def parse_prefix(text: str, where: str) -> IPNetwork:
    """Read a destination; bits of the host are dropped, since the kernel refuses them.

    Raises:
        Refused: no address and length.
    """
    # ipaddress alone would also take a netmask, or no length at all.
    if "%" not in text and re.fullmatch(r"[^/]+/[0-9]{1,3}", text):
        try:
            return ip_network(text, strict=False)
        except ValueError:
            pass
    raise Refused(f"Network: {where} is not an address and a prefix length")


def _route(route: RouteSettings, low_metric: bool, where: str) -> Route | None:
    destination = parse_prefix(route.destination, f"{where}.DestinationPrefix")
    gateway = _parsed(route.next_hop, f"{where}.NextHop") if route.next_hop else None
    if destination.prefixlen == 0 and gateway is not None and gateway.is_unspecified:
        return None  # a host's way to say that there is no default gateway
    if destination.prefixlen == 0 and gateway is None:
        raise Refused(f"Network: {where}.NextHop is missing for a default route")
    if gateway is not None and gateway.version != destination.version:
        raise Refused(f"Network: {where}.NextHop is of another IP version than DestinationPrefix")
    return Route(
        str(destination),
        "" if gateway is None or gateway.is_unspecified else str(gateway),
        route.metric or (LOW_METRIC if low_metric else 0),
        POLICY_TABLE if low_metric else MAIN_TABLE,
    )
