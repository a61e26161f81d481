"""Network namespaces of no machine: what the network plugin asks of a kernel, in memory.

Answers with the errnos of the real one, which the tests with real namespaces check it
against. Any call can be made to fail: ``fail_at`` counts the calls that change something.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from uvmd_network.kernel import Link
from uvmd_network.layout import Address, Route, Rule


def no(code: int, text: str = "") -> OSError:
    return OSError(code, text or os.strerror(code))


@dataclass
class Interface:
    """One interface and what was put on it."""

    name: str
    mtu: int = 1500
    up: bool = False
    addresses: list[Address] = field(default_factory=list)


@dataclass
class Space:
    """One network namespace."""

    interfaces: dict[int, Interface] = field(default_factory=dict)
    routes: list[tuple[int, Route]] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)

    def picture(self) -> dict[str, object]:
        """All of it, to compare."""
        return {
            "interfaces": sorted(
                (one.name, one.mtu, one.up, tuple(one.addresses)) for one in self.interfaces.values()
            ),
            "routes": sorted(self.routes),
            "rules": sorted(self.rules),
        }

    def by_name(self, name: str) -> int:
        for number, one in self.interfaces.items():
            if one.name == name:
                return number
        raise no(errno.ENODEV)

    def drop_routes(self, number: int) -> None:
        self.routes = [(oif, route) for oif, route in self.routes if oif != number]


class FakeKernel:
    """Implements ``uvmd_network.kernel.Kernel``. ``home`` is the VM's namespace, pods go by pid."""

    def __init__(self) -> None:
        self.home = Space()
        self.pods: dict[int, Space] = {}
        self.open: dict[int, Space] = {}
        self.sockets = 0
        self.changes: list[str] = []
        self.fail_at: int | None = None
        self.failure = errno.EPERM
        self._next = 100

    def plug(self, name: str, mtu: int = 1500) -> int:
        """A new adapter of the VM."""
        self._next += 1
        self.home.interfaces[self._next] = Interface(name, mtu)
        return self._next

    def picture(self) -> object:
        return self.home.picture(), {pid: space.picture() for pid, space in self.pods.items()}

    # Kernel

    def hold(self, pid: int, started: int) -> int:
        if pid not in self.pods:
            raise ProcessLookupError(errno.ESRCH, "No such process", f"process {pid}")
        return self._opened(self.pods[pid])

    def hold_own(self) -> int:
        return self._opened(self.home)

    def _opened(self, space: Space) -> int:
        self._next += 1
        self.open[self._next] = space
        return self._next

    def release(self, namespace: int) -> None:
        del self.open[namespace]

    def links(self, namespace: int | None) -> FakeLinks:
        self.sockets += 1
        return FakeLinks(self, self.home if namespace is None else self.open[namespace])

    def change(self, what: str) -> None:
        """Every change passes here before it happens."""
        self.changes.append(what)
        if self.fail_at is not None and len(self.changes) == self.fail_at:
            raise no(self.failure)


class FakeLinks:
    """Implements ``uvmd_network.kernel.Links``."""

    def __init__(self, kernel: FakeKernel, space: Space) -> None:
        self._kernel = kernel
        self._space = space

    def close(self) -> None:
        self._kernel.sockets -= 1

    def link(self, name: str) -> Link:
        number = self._space.by_name(name)
        one = self._space.interfaces[number]
        return Link(number, one.name, one.mtu, one.up)

    def names(self) -> set[str]:
        return {one.name for one in self._space.interfaces.values()}

    def move(self, index: int, namespace: int, name: str) -> None:
        self._kernel.change(f"move {name}")
        there, one = self._kernel.open[namespace], self._space.interfaces[index]
        if name in {other.name for other in there.interfaces.values()}:
            raise no(errno.EEXIST)
        del self._space.interfaces[index]
        self._space.drop_routes(index)
        one.name, one.up, one.addresses = name, False, []
        there.interfaces[index] = one

    def configure(self, index: int, *, mtu: int = 0, up: bool | None = None) -> None:
        self._kernel.change(f"configure mtu {mtu} up {up}")
        one = self._space.interfaces[index]
        one.mtu = mtu or one.mtu
        one.up = one.up if up is None else up
        if up is False:
            self._space.drop_routes(index)

    def add_address(self, index: int, address: Address) -> None:
        self._kernel.change(f"address {address.address}")
        addresses = self._space.interfaces[index].addresses
        if address in addresses:
            raise no(errno.EEXIST)
        addresses.append(address)

    def remove_address(self, index: int, address: Address) -> None:
        self._kernel.change(f"no address {address.address}")
        addresses = self._space.interfaces[index].addresses
        if address not in addresses:
            raise no(errno.EADDRNOTAVAIL)
        addresses.remove(address)

    def add_route(self, index: int, route: Route) -> None:
        self._kernel.change(f"route {route.destination}")
        if not self._space.interfaces[index].up:
            raise no(errno.ENETDOWN)
        if route.gateway and not self._reaches(index, route.gateway):
            raise no(errno.EHOSTUNREACH if ":" in route.gateway else errno.ENETUNREACH)
        taken = {(one.destination, one.metric, one.table) for _, one in self._space.routes}
        if (route.destination, route.metric, route.table) in taken:
            raise no(errno.EEXIST)
        self._space.routes.append((index, route))

    def _reaches(self, index: int, gateway: str) -> bool:
        near = [f"{one.address}/{one.prefix}" for one in self._space.interfaces[index].addresses]
        near += [one.destination for oif, one in self._space.routes if oif == index and not one.gateway]
        return any(ip_address(gateway) in ip_network(one, strict=False) for one in near)

    def remove_route(self, index: int, route: Route) -> None:
        self._kernel.change(f"no route {route.destination}")
        if (index, route) not in self._space.routes:
            raise no(errno.ESRCH)
        self._space.routes.remove((index, route))

    def add_rule(self, rule: Rule) -> None:
        self._kernel.change(f"rule {rule.source}")
        if rule in self._space.rules:
            raise no(errno.EEXIST)
        self._space.rules.append(rule)

    def remove_rule(self, rule: Rule) -> None:
        self._kernel.change(f"no rule {rule.source}")
        if rule not in self._space.rules:
            raise no(errno.ENOENT)
        self._space.rules.remove(rule)
