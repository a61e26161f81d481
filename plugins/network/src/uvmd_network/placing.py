"""Putting one adapter where it belongs, and taking it back (spec containers.md 14.5, 14.6).

Each of the two happens whole or not at all. Errors say what was tried on which interface
and with which errno; nothing depends on the text of one.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Final

from uvmd.api.transaction import Undo, transaction
from uvmd.errors import Failed, Refused
from uvmd_network.kernel import Kernel, Link, Links
from uvmd_network.layout import Address, Layout, Route, full_prefix
from uvmd_network.table import Adapter

#: What IPv4 needs at least (RFC 791).
_MIN_MTU: Final = 68
#: Nothing leads to a gateway: IPv4's errno, and IPv6's.
_UNREACHABLE: Final = (errno.ENETUNREACH, errno.EHOSTUNREACH)
_NO_LINK: Final = (errno.ENODEV, errno.ENXIO)

Report = Callable[[str], None]


@contextmanager
def telling(what: str) -> Iterator[None]:
    """Turn the kernel's no into an error that says to what.

    Raises:
        Failed: with the errno's name and the kernel's words.
    """
    try:
        yield
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, str(error.errno))
        raise Failed(f"{what}: {(error.strerror or '').lower()} ({code})") from error


def unless(gone: tuple[int, ...], step: Callable[..., object], *arguments: object) -> bool:
    """Take a step; False if it was not needed, which these errnos say."""
    try:
        step(*arguments)
    except OSError as error:
        if error.errno not in gone:
            raise
        return False
    return True


class Placer:
    """Works on the namespace of a pod, given by descriptor, or (None) on the VM's own.

    Args:
        gateway_address: for a gateway outside the subnet put its address on the link.
    """

    def __init__(self, kernel: Kernel, *, gateway_address: bool = False) -> None:
        self._kernel = kernel
        self._gateway_address = gateway_address

    def put(
        self,
        adapter: Adapter,
        where: int | None,
        report: Report,
        lease: Callable[[str], Layout] | None,
        journal: Callable[[], None],
    ) -> None:
        """Move the adapter, take it up and give it ``adapter.layout``.

        Args:
            report: told of an undo that failed.
            lease: gets addresses for the interface when the host gave none.
            journal: called before the first change, and when a lease says what else will come.

        Raises:
            Failed: everything is as before.
            Refused: the overhead leaves no MTU.
        """
        assert adapter.layout is not None
        with ExitStack() as held:
            home = held.enter_context(closing(self._links(None)))
            link = self._link(home, adapter.home_name)
            adapter.mtu = adapter.mtu or link.mtu
            mtu = self._mtu_of(adapter)
            inside = home if where is None else held.enter_context(closing(self._links(where)))
            adapter.name = link.name
            journal()
            with transaction(report) as undo:
                if where is not None:
                    with telling(f"move {link.name} to the pod"):
                        if not unless((errno.EEXIST,), home.move, link.number, where, adapter.name):
                            adapter.name = self._free(link.name, inside)
                            journal()
                            home.move(link.number, where, adapter.name)
                    undo.callback(self._move_back, inside, adapter.name, link, step="move it back")
                    link = self._link(inside, adapter.name)
                self._configure(inside, link, mtu, undo)
                if lease is not None:
                    adapter.layout = lease(adapter.name)
                    journal()
                self._fill(inside, link, adapter.layout, undo)

    def take(self, adapter: Adapter, where: int | None, report: Report) -> None:
        """Take away what ``put`` made, as far as it is there, and the adapter back to the VM.

        An interface that is gone has taken its addresses and routes along.

        Raises:
            Failed: everything is as before.
        """
        layout = adapter.layout or Layout()
        with ExitStack() as held:
            inside = held.enter_context(closing(self._links(where)))
            with transaction(report) as undo:
                for rule in reversed(layout.rules):
                    with telling(f"remove the rule for {rule.source}"):
                        if unless((errno.ENOENT,), inside.remove_rule, rule):
                            undo.callback(inside.add_rule, rule)
                link = self._link_or_none(inside, adapter.name)
                home = inside if where is None else held.enter_context(closing(self._links(None)))
                if where is None and link is not None:
                    self._empty(inside, link, layout, adapter.mtu, undo)
                elif link is not None:
                    self._move_out(inside, link, home, adapter, undo)
                else:
                    self._restore_mtu(home, adapter)

    # Putting

    def _links(self, where: int | None) -> Links:
        with telling("open a network namespace"):
            return self._kernel.links(where)

    @staticmethod
    def _link(links: Links, name: str) -> Link:
        with telling(f"look at {name}"):
            return links.link(name)

    @staticmethod
    def _link_or_none(links: Links, name: str) -> Link | None:
        try:
            return links.link(name) if name else None
        except OSError as error:
            if error.errno in _NO_LINK:
                return None
            raise Failed(f"look at {name}: {error.strerror}") from error

    @staticmethod
    def _mtu_of(adapter: Adapter) -> int:
        """The MTU to set; 0 for none."""
        overhead = adapter.settings.encap_overhead
        if overhead and adapter.mtu - overhead < _MIN_MTU:
            raise Refused(f"Network: EncapOverhead leaves less than {_MIN_MTU} of the MTU {adapter.mtu}")
        return adapter.mtu - overhead if overhead else 0

    def _free(self, name: str, there: Links) -> str:
        """The name, or the next one of its kind that is free there.

        The VM gives a new adapter the name of one that has moved to a pod.
        """
        if self._link_or_none(there, name) is None:
            return name
        with telling("list the interfaces"):
            taken = there.names()
        kind = re.sub(r"[0-9]+$", "", name) or "eth"
        return next(one for number in range(len(taken) + 1) if (one := f"{kind}{number}") not in taken)

    def _move_back(self, inside: Links, name: str, was: Link) -> None:
        """Undo a move: under its name of before, up if it was."""
        own = self._kernel.hold_own()
        try:
            inside.move(inside.link(name).number, own, was.name)
            if was.up:
                with closing(self._kernel.links(None)) as home:
                    home.configure(home.link(was.name).number, up=True)
        finally:
            self._kernel.release(own)

    @staticmethod
    def _configure(inside: Links, link: Link, mtu: int, undo: Undo) -> None:
        with telling(f"set up {link.name}" + (f" with MTU {mtu}" if mtu else "")):
            inside.configure(link.number, mtu=mtu, up=True)

        def as_before() -> None:
            inside.configure(link.number, mtu=link.mtu if mtu else 0, up=link.up)

        undo.callback(as_before, step=f"take {link.name} down")

    def _fill(self, inside: Links, link: Link, layout: Layout, undo: Undo) -> None:
        for address in layout.addresses:
            self._add_address(inside, link, address, undo)
        for rule in layout.rules:
            with telling(f"add the rule for {rule.source}"):
                inside.add_rule(rule)
            undo.callback(inside.remove_rule, rule)
        for route in layout.routes:
            self._add_route(inside, link, route, undo)

    @staticmethod
    def _add_address(inside: Links, link: Link, address: Address, undo: Undo) -> None:
        with telling(f"add address {address.address}/{address.prefix} to {link.name}"):
            inside.add_address(link.number, address)
        undo.callback(inside.remove_address, link.number, address)

    def _add_route(self, inside: Links, link: Link, route: Route, undo: Undo) -> None:
        way = f" via {route.gateway}" if route.gateway else ""
        with telling(f"add route {route.destination}{way} on {link.name}"):
            try:
                inside.add_route(link.number, route)
            except OSError as error:
                if error.errno not in _UNREACHABLE or not route.gateway:
                    raise
                self._reach_gateway(inside, link, route, undo)
                inside.add_route(link.number, route)
        undo.callback(self._remove_route, inside, link, route)

    @staticmethod
    def _remove_route(inside: Links, link: Link, route: Route) -> None:
        # Gone with the address or the gateway's route on which it rested.
        unless((errno.ESRCH,), inside.remove_route, link.number, route)

    def _reach_gateway(self, inside: Links, link: Link, route: Route, undo: Undo) -> None:
        """Make a gateway that no subnet contains reachable over the link."""
        prefix = full_prefix(route.gateway)
        if self._takes_address(route.gateway):
            self._add_address(inside, link, Address(route.gateway, prefix), undo)
            return
        way = Route(f"{route.gateway}/{prefix}", table=route.table, on_link=True)
        if unless((errno.EEXIST,), inside.add_route, link.number, way):
            undo.callback(self._remove_route, inside, link, way)

    # Taking

    def _move_out(self, inside: Links, link: Link, home: Links, adapter: Adapter, undo: Undo) -> None:
        """Addresses and routes go with the move, which is last: nothing else has to be undone after it."""
        name = self._free(adapter.home_name or link.name, home)
        if link.mtu != adapter.mtu:
            with telling(f"set MTU {adapter.mtu} on {link.name}"):
                inside.configure(link.number, mtu=adapter.mtu)
            undo.callback(lambda: inside.configure(link.number, mtu=link.mtu), step=f"MTU of {link.name}")
        own = self._kernel.hold_own()
        try:
            with telling(f"move {link.name} back to the VM"):
                inside.move(link.number, own, name)
        finally:
            self._kernel.release(own)

    def _restore_mtu(self, home: Links, adapter: Adapter) -> None:
        """Give back what the overhead took from an adapter that came to the VM by other ways."""
        link = self._link_or_none(home, adapter.home_name)
        if link is not None and link.mtu == adapter.mtu - adapter.settings.encap_overhead != adapter.mtu:
            with telling(f"set MTU {adapter.mtu} on {link.name}"):
                home.configure(link.number, mtu=adapter.mtu)

    def _empty(self, inside: Links, link: Link, layout: Layout, mtu: int, undo: Undo) -> None:
        """Take everything off an interface that stays where it is."""
        for route in reversed(layout.routes):
            with telling(f"remove route {route.destination} on {link.name}"):
                if unless((errno.ESRCH,), inside.remove_route, link.number, route):
                    undo.callback(inside.add_route, link.number, route)
        for address in reversed(self._addresses(layout)):
            with telling(f"remove address {address.address} of {link.name}"):
                if unless((errno.EADDRNOTAVAIL,), inside.remove_address, link.number, address):
                    undo.callback(inside.add_address, link.number, address)
        with telling(f"take {link.name} down"):
            # What led to gateways on the link goes with it.
            inside.configure(link.number, mtu=mtu if mtu != link.mtu else 0, up=False)

    def _addresses(self, layout: Layout) -> list[Address]:
        """Those of the layout, and those of gateways that were put on the link."""
        own = list(layout.addresses)
        if self._gateway_address:
            gateways = dict.fromkeys(route.gateway for route in layout.routes)
            own += [Address(one, full_prefix(one)) for one in gateways if self._takes_address(one)]
        return own

    def _takes_address(self, gateway: str) -> bool:
        """Whether a gateway's address is put on the link. IPv6 takes no own address for a gateway."""
        return self._gateway_address and bool(gateway) and ":" not in gateway
