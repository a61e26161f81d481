"""What we ask of the kernel, in the words of this plugin; the seam at which tests put another one."""

from __future__ import annotations

import os
import socket
from typing import Final, NamedTuple, Protocol

from uvmd.linux import netns
from uvmd_network import messages
from uvmd_network.layout import Address, Route, Rule, full_prefix
from uvmd_network.netlink import Netlink

# linux/if.h, linux/if_addr.h, linux/rtnetlink.h, linux/fib_rules.h
_IFF_UP: Final = 1
_IFA_F_NODAD: Final = 0x02
_RTPROT_BOOT: Final = 3
_RT_SCOPE_UNIVERSE: Final = 0
_RT_SCOPE_LINK: Final = 253
_RTN_UNICAST: Final = 1
_FR_ACT_TO_TBL: Final = 1
_RTEXT_FILTER_SKIP_STATS: Final = 8
_NEW: Final = messages.NLM_F_REQUEST | messages.NLM_F_CREATE | messages.NLM_F_EXCL


class Link(NamedTuple):
    """An interface."""

    number: int
    name: str
    mtu: int
    up: bool


class Links(Protocol):
    """The interfaces of one network namespace. Every method raises OSError with the kernel's errno."""

    def link(self, name: str) -> Link:
        """Return the interface of this name; ENODEV: there is none."""

    def names(self) -> set[str]:
        """Return the names of all interfaces."""

    def move(self, index: int, namespace: int, name: str) -> None:
        """Take an interface down and to another namespace, under this name; EEXIST: it is taken there."""

    def configure(self, index: int, *, mtu: int = 0, up: bool | None = None) -> None:
        """Set the MTU (0: leave it), and take the interface up or down (None: leave it)."""

    def add_address(self, index: int, address: Address) -> None:
        """Add an address; EEXIST: it is there."""

    def remove_address(self, index: int, address: Address) -> None:
        """Remove an address; EADDRNOTAVAIL: it is not there."""

    def add_route(self, index: int, route: Route) -> None:
        """Add a route; EEXIST: it is there; ENETUNREACH, EHOSTUNREACH: nothing leads to its gateway."""

    def remove_route(self, index: int, route: Route) -> None:
        """Remove a route; ESRCH: it is not there."""

    def add_rule(self, rule: Rule) -> None:
        """Add a rule; EEXIST: it is there."""

    def remove_rule(self, rule: Rule) -> None:
        """Remove a rule; ENOENT: it is not there."""

    def close(self) -> None:
        """Let go of the namespace."""


class Kernel(Protocol):
    """Network namespaces."""

    def hold(self, pid: int, started: int) -> int:
        """See :func:`uvmd.linux.netns.hold`."""

    def hold_own(self) -> int:
        """See :func:`uvmd.linux.netns.hold_own`."""

    def release(self, namespace: int) -> None:
        """Close what one of the two returned."""

    def links(self, namespace: int | None) -> Links:
        """Open a namespace; None is the calling thread's own."""


class Linux:
    """The real one."""

    hold = staticmethod(netns.hold)
    hold_own = staticmethod(netns.hold_own)
    release = staticmethod(os.close)

    @staticmethod
    def links(namespace: int | None) -> Links:
        return NetlinkLinks(Netlink() if namespace is None else netns.run_in(namespace, Netlink))


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class NetlinkLinks:
    """The interfaces of the namespace in which the socket was made."""

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink
        self.close = netlink.close

    def link(self, name: str) -> Link:
        attributes = [("IFLA_IFNAME", name), ("IFLA_EXT_MASK", _RTEXT_FILTER_SKIP_STATS)]
        flags = messages.NLM_F_REQUEST
        message = messages.encode("link", messages.RTM_GETLINK, flags, {}, attributes)
        return self._read(self._netlink.request(message)[0])

    def names(self) -> set[str]:
        attributes = [("IFLA_EXT_MASK", _RTEXT_FILTER_SKIP_STATS)]
        flags = messages.NLM_F_REQUEST | messages.NLM_F_DUMP
        message = messages.encode("link", messages.RTM_GETLINK, flags, {}, attributes)
        return {self._read(one).name for one in self._netlink.request(message)}

    @staticmethod
    def _read(answer: bytes) -> Link:
        number, flags, name, mtu = messages.read_link(answer)
        return Link(number, name, mtu, bool(flags & _IFF_UP))

    def move(self, index: int, namespace: int, name: str) -> None:
        # The kernel closes the device itself before it moves it.
        self._set_link({"index": index}, [("IFLA_NET_NS_FD", namespace), ("IFLA_IFNAME", name)])

    def configure(self, index: int, *, mtu: int = 0, up: bool | None = None) -> None:
        fields = {"index": index}
        if up is not None:
            fields |= {"change": _IFF_UP, "flags": _IFF_UP if up else 0}
        self._set_link(fields, [("IFLA_MTU", mtu)] if mtu else [])

    def _set_link(self, fields: dict[str, int], attributes: messages.Attributes) -> None:
        flags = messages.NLM_F_REQUEST
        self._netlink.request(messages.encode("link", messages.RTM_SETLINK, flags, fields, attributes))

    def add_address(self, index: int, address: Address) -> None:
        self._address(messages.RTM_NEWADDR, _NEW, index, address)

    def remove_address(self, index: int, address: Address) -> None:
        self._address(messages.RTM_DELADDR, messages.NLM_F_REQUEST, index, address)

    def _address(self, type_: int, flags: int, index: int, address: Address) -> None:
        family = _family(address.address)
        # The host gives an address to one pod. Looking for another owner would leave it
        # unusable for the first seconds of the pod.
        state = _IFA_F_NODAD if family == socket.AF_INET6 else 0
        fields = {"family": family, "prefixlen": address.prefix, "flags": state, "index": index}
        attributes = [("IFA_LOCAL", address.address), ("IFA_ADDRESS", address.address)]
        self._netlink.request(messages.encode("address", type_, flags, fields, attributes))

    def add_route(self, index: int, route: Route) -> None:
        self._route(messages.RTM_NEWROUTE, _NEW, index, route)

    def remove_route(self, index: int, route: Route) -> None:
        self._route(messages.RTM_DELROUTE, messages.NLM_F_REQUEST, index, route)

    def _route(self, type_: int, flags: int, index: int, route: Route) -> None:
        destination, _, prefix = route.destination.partition("/")
        fields = {
            "family": _family(destination),
            "dst_len": int(prefix),
            "table": route.table,
            "proto": _RTPROT_BOOT,
            "scope": _RT_SCOPE_LINK if route.on_link else _RT_SCOPE_UNIVERSE,
            "type": _RTN_UNICAST,
        }
        attributes: list[tuple[str, str | int]] = [("RTA_OIF", index)]
        if int(prefix):
            attributes.append(("RTA_DST", destination))
        if route.gateway:
            attributes.append(("RTA_GATEWAY", route.gateway))
        if route.metric:
            attributes.append(("RTA_PRIORITY", route.metric))
        self._netlink.request(messages.encode("route", type_, flags, fields, attributes))

    def add_rule(self, rule: Rule) -> None:
        self._rule(messages.RTM_NEWRULE, _NEW, rule)

    def remove_rule(self, rule: Rule) -> None:
        self._rule(messages.RTM_DELRULE, messages.NLM_F_REQUEST, rule)

    def _rule(self, type_: int, flags: int, rule: Rule) -> None:
        fields = {
            "family": _family(rule.source),
            "src_len": full_prefix(rule.source),
            "table": rule.table,
            "action": _FR_ACT_TO_TBL,
        }
        attributes = [("FRA_SRC", rule.source), ("FRA_PRIORITY", rule.priority)]
        self._netlink.request(messages.encode("rule", type_, flags, fields, attributes))
