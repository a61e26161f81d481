"""Adapters and pods on real network namespaces joined by veth pairs (root)."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from support.network import Machine, Space, machine
from uvmd.api.testing import FakePlatform, MemoryState, Workbench, fake_environment
from uvmd.api.transaction import transaction
from uvmd.errors import DeadlineExceeded, Failed, NamespaceNotFound, Refused
from uvmd_network import plugin
from uvmd_network.config import NetworkConfig
from uvmd_network.provider import Provider

pytestmark = pytest.mark.root

NS = "6f2a0e8a-3f0f-4c6e-9d57-0b5cb1b4a001"


class Vm:
    """A daemon's pipeline and provider, at home in the machine's VM namespace."""

    def __init__(self, machine: Machine, state: MemoryState, config: NetworkConfig) -> None:
        self.machine = machine
        platform = FakePlatform(sys_root=str(machine.sys_root))
        self.environment = fake_environment(config, platform=platform, state=state)
        self.bench = Workbench(plugin.resource_types(), self.environment)
        self.provider = Provider(self.environment)

    def add(
        self, mac: str, addresses: list[str], routes: Sequence[tuple[str, str, int]] = (), **more: Any
    ) -> None:
        settings = {
            "NamespaceID": NS,
            "ID": mac,
            "IPConfigs": [
                {"IPAddress": one.split("/")[0], "PrefixLength": int(one.split("/")[1])} for one in addresses
            ],
            "Routes": [
                {"DestinationPrefix": to, "NextHop": via, "Metric": metric} for to, via, metric in routes
            ],
            **more,
        }
        self.machine.vm.inside(lambda: self.bench.add("Network", settings))

    def remove(self, mac: str) -> None:
        self.machine.vm.inside(lambda: self.bench.remove("Network", {"NamespaceID": NS, "ID": mac}))

    def attach(self, pid: int, fail: bool = False) -> None:
        def change() -> None:
            with transaction(self.bench.gate.mark) as undo:
                if pid:
                    self.provider.attach(NS, pid, undo)
                else:
                    self.provider.attach_host(NS, undo)
                if fail:
                    raise KeyError("a later step of the create")

        self.machine.vm.inside(change)

    def detach(self) -> None:
        self.machine.vm.inside(lambda: self.provider.detach(NS))


class Things:
    """What a test works with."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.state = machine, MemoryState()
        self.config = NetworkConfig(adapter_timeout_s=0.3)
        self.vm = Vm(machine, self.state, self.config)

    def restart(self) -> None:
        """A new daemon; the old one's descriptors are closed, as they are when it dies."""
        for namespace in self.vm.provider._networks.table._namespaces.values():
            if namespace.held is not None:
                os.close(namespace.held)
        kept, self.state = self.state.load(), MemoryState()
        self.state.save(kept)
        self.vm = Vm(self.machine, self.state, self.config)


@pytest.fixture
def things(tmp_path: Path) -> Iterator[Things]:
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    with machine(tmp_path / "sys") as made:
        yield (found := Things(made))
        for known in found.vm.provider._networks.table._namespaces.values():
            assert known.held is None, "a test left a pod behind"
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before
    assert found.vm.bench.gate.degraded is None


BOTH = ["10.1.0.2/24", "fd00:1::2/64"]
ROUTES = [
    ("0.0.0.0/0", "10.1.0.1", 0),
    ("::/0", "fd00:1::1", 0),
    ("192.168.7.9/16", "10.1.0.254", 7),
    ("172.16.0.0/12", "", 0),
]
AS_MADE = {
    "default via 10.1.0.1 dev eth0",
    "default via fd00:1::1 dev eth0 metric 1024",
    "192.168.0.0/16 via 10.1.0.254 dev eth0 metric 7",
    "172.16.0.0/12 dev eth0",
}


def plain(routes: set[str]) -> set[str]:
    """Without what the kernel adds for show."""
    return {one.replace(" scope link", "").removesuffix(" linkdown") for one in routes}


def reaches(pod: Space, there: Space, address: str) -> bool:
    """Whether something can be said to an address, and is heard."""

    def listen() -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made = socket.create_server((address, 7), family=family)
        made.settimeout(5)
        return made

    with there.inside(listen) as server:
        with pod.inside(lambda: socket.create_connection((address, 7), timeout=5)) as said:
            heard, _ = server.accept()
            with heard:
                said.sendall(b"here")
                return heard.recv(4) == b"here"


def test_an_adapter_before_the_pod_is_moved_in_and_set_up(things: Things) -> None:
    pod, mac = things.machine.pod(), things.machine.plug("out0")
    before = things.machine.vm.picture()
    things.vm.add(mac, BOTH, ROUTES, EncapOverhead=50)
    assert things.machine.vm.picture() == before, "nothing happens before there is a pod"
    things.vm.attach(pod.pid)
    assert things.machine.vm.names() == set()
    assert pod.addresses("eth0") == set(BOTH)
    assert plain(pod.routes()) == AS_MADE
    assert pod.link("eth0")["mtu"] == 1450
    assert pod.rules() == set()
    things.machine.outside.ip("addr", "add", "10.1.0.1/24", "dev", "out0")
    things.machine.outside.ip("addr", "add", "fd00:1::1/64", "dev", "out0", "nodad")
    for address in ("10.1.0.1", "fd00:1::1"):
        assert reaches(pod, things.machine.outside, address)
    things.vm.detach()
    assert things.machine.vm.picture() == before
    assert pod.names() == set()
    things.vm.remove(mac)
    assert not things.vm.provider.exists(NS)
    assert things.state.load()["namespaces"] == []


def test_an_ipv6_address_can_be_used_at_once(things: Things) -> None:
    pod, mac = things.machine.pod(), things.machine.plug("out0")
    things.vm.add(mac, BOTH)
    things.vm.attach(pod.pid)
    (shown,) = pod.ip("-6", "addr", "show", "dev", "eth0")
    assert [one.get("tentative") for one in shown["addr_info"] if one["scope"] == "global"] == [None]
    things.vm.detach()
    things.vm.remove(mac)


def test_adapters_come_to_a_pod_that_runs_and_go_again(things: Things) -> None:
    pod, first = things.machine.pod(), things.machine.plug("out0")
    things.vm.add(first, ["10.1.0.2/24"], [("0.0.0.0/0", "10.1.0.1", 0)])
    things.vm.attach(pod.pid)
    alone = pod.picture()
    # The VM gives the next adapter the name that has just become free; in the pod it is taken.
    second = things.machine.plug("out1")
    before = things.machine.vm.picture()
    assert before["links"].keys() == {"lo", "eth0"}
    things.vm.add(second, ["10.2.0.2/24"], [("0.0.0.0/0", "10.2.0.1", 0)], PolicyBasedRouting=True)
    assert pod.addresses("eth1") == {"10.2.0.2/24"}
    assert plain(pod.routes()) == {"default via 10.1.0.1 dev eth0"}
    assert plain(pod.routes("101")) == {"default via 10.2.0.1 dev eth1 metric 500"}
    assert pod.rules() == {"5: from 10.2.0.2 lookup 101"}
    things.vm.remove(second)
    assert pod.picture() == alone
    assert things.machine.vm.picture() == before
    things.vm.detach()
    things.vm.remove(first)


def test_policy_routing_spares_the_first_adapter_and_knows_both_families(things: Things) -> None:
    pod = things.machine.pod()
    macs = [things.machine.plug(f"out{at}") for at in range(2)]
    for at, mac in enumerate(macs):
        addresses = [f"10.{at}.0.2/24", f"fd00:{at}::2/64"]
        routes = [("0.0.0.0/0", f"10.{at}.0.1", 0), ("::/0", f"fd00:{at}::1", 0)]
        things.vm.add(mac, addresses, routes, PolicyBasedRouting=True, EnableLowMetric=True)
    things.vm.attach(pod.pid)
    assert plain(pod.routes()) == {
        "default via 10.0.0.1 dev eth0",
        "default via fd00::1 dev eth0 metric 1024",
    }
    assert plain(pod.routes("101")) == {
        "default via 10.1.0.1 dev eth1 metric 500",
        "default via fd00:1::1 dev eth1 metric 500",
    }
    assert pod.rules() == {"5: from 10.1.0.2 lookup 101", "5: from fd00:1::2 lookup 101"}
    things.vm.detach()
    assert pod.rules() == set()
    assert pod.routes("101") == set()
    for mac in macs:
        things.vm.remove(mac)


@pytest.mark.parametrize("gateway", ["route", "address"])
def test_a_gateway_outside_the_subnet_is_reached_over_the_link(
    things: Things, gateway: Literal["route", "address"]
) -> None:
    things.config = NetworkConfig(adapter_timeout_s=0.3, gateway_outside_subnet=gateway)
    things.restart()
    pod, mac = things.machine.pod(), things.machine.plug("out0")
    before = things.machine.vm.picture()
    routes = [("0.0.0.0/0", "169.254.1.1", 0), ("::/0", "fd99::1", 0)]
    for host in (False, True):
        things.vm.add(mac, ["10.1.0.2/32", "fd00:1::2/128"], routes)
        things.vm.attach(0 if host else pod.pid)
        where = things.machine.vm if host else pod
        assert {one for one in plain(where.routes()) if one.startswith("default")} == {
            "default via 169.254.1.1 dev eth0",
            "default via fd99::1 dev eth0 metric 1024",
        }
        assert ("169.254.1.1/32" in where.addresses("eth0")) == (gateway == "address")
        assert ("169.254.1.1 dev eth0" in plain(where.routes())) == (gateway == "route")
        things.vm.detach()
        assert things.machine.vm.picture() == before
        things.vm.remove(mac)


def test_a_pod_in_the_vms_network_is_set_up_in_place_also_later(things: Things) -> None:
    first, second = things.machine.plug("out0"), things.machine.plug("out1")
    before = things.machine.vm.picture()
    things.vm.add(first, BOTH, ROUTES, EncapOverhead=50)
    things.vm.attach(0)
    things.vm.add(second, ["10.2.0.2/24"], [("0.0.0.0/0", "10.2.0.1", 0)], PolicyBasedRouting=True)
    vm = things.machine.vm
    assert vm.addresses("eth0") == set(BOTH)
    assert vm.link("eth0")["mtu"] == 1450
    assert plain(vm.routes()) == AS_MADE
    assert vm.rules() == {"5: from 10.2.0.2 lookup 101"}
    things.vm.remove(second)
    assert vm.rules() == set()
    assert vm.addresses("eth1") == set()
    things.vm.detach()
    assert vm.picture() == before
    things.vm.remove(first)


def test_an_adapter_that_never_appears_leaves_nothing(things: Things) -> None:
    with pytest.raises(DeadlineExceeded, match=r"MAC address 02:00:00:00:00:01 did not come within"):
        things.vm.add("02-00-00-00-00-01", ["10.0.0.2/24"])
    assert not things.vm.provider.exists(NS)


def test_an_adapter_that_comes_while_it_is_waited_for_is_taken(things: Things) -> None:
    mac = things.machine.plug("out0")
    things.machine.unshow("eth0")
    timer = threading.Timer(0.1, things.machine.show, ("eth0", mac))
    timer.start()
    things.vm.add(mac, ["10.0.0.2/24"])
    timer.join()
    things.vm.remove(mac)


def test_an_address_that_is_already_there_fails_and_is_unwound(things: Things) -> None:
    mac = things.machine.plug("out0")
    before = things.machine.vm.picture()
    things.vm.add(mac, ["10.1.0.2/24", "10.1.0.3/24", "10.1.0.2/24"], ROUTES[:1])
    pod = things.machine.pod()
    inside = pod.picture()
    for where in (pod.pid, 0):
        with pytest.raises(Failed, match=r"add address 10\.1\.0\.2/24 to eth0: .*\(EEXIST\)"):
            things.vm.attach(where)
        assert things.machine.vm.picture() == before
        assert pod.picture() == inside
    things.vm.remove(mac)


def test_a_route_that_the_kernel_refuses_fails_and_is_unwound(things: Things) -> None:
    pod, first = things.machine.pod(), things.machine.plug("out0")
    things.vm.add(first, ["10.1.0.2/24"])
    things.vm.attach(pod.pid)
    second = things.machine.plug("out1")
    vm, inside = things.machine.vm.picture(), pod.picture()
    refused = [("10.9.0.0/16", "10.2.0.255", 0)]  # no machine: the broadcast address
    for _ in range(2):
        with pytest.raises(Failed, match=r"add route 10\.9\.0\.0/16 via 10\.2\.0\.255 on eth1: .*\(EINVAL\)"):
            things.vm.add(
                second, ["10.2.0.2/24"], [("0.0.0.0/0", "10.2.0.1", 0), *refused], EnableLowMetric=True
            )
        assert things.machine.vm.picture() == vm
        assert pod.picture() == inside
    things.vm.add(second, ["10.2.0.2/24"], EncapOverhead=100)
    assert pod.link("eth1")["mtu"] == 1400
    things.vm.detach()
    things.vm.remove(second)
    things.vm.remove(first)


def test_a_create_that_fails_later_gives_the_adapters_back_and_can_be_repeated(things: Things) -> None:
    mac = things.machine.plug("out0")
    before = things.machine.vm.picture()
    things.vm.add(mac, BOTH, ROUTES, EnableLowMetric=True)
    for where in (things.machine.pod().pid, 0):
        with pytest.raises(KeyError):
            things.vm.attach(where, fail=True)
        assert things.machine.vm.picture() == before
        things.vm.attach(where)
        with pytest.raises(Refused, match="has a pod already"):
            things.vm.attach(where)
        things.vm.detach()
        assert things.machine.vm.picture() == before
    things.vm.remove(mac)


def test_a_pod_whose_process_is_gone_gives_its_adapters_back_to_the_next(things: Things) -> None:
    mac = things.machine.plug("out0")
    things.vm.add(mac, BOTH, ROUTES, EncapOverhead=50)
    for _ in range(2):
        pod = things.machine.pod()
        things.vm.attach(pod.pid)  # also the second time: nobody told us that the first is gone
        assert pod.link("eth0")["mtu"] == 1450
        pod.end()
    things.vm.detach()
    assert things.machine.vm.link("eth0")["mtu"] == 1500
    things.vm.remove(mac)


def test_a_restarted_daemon_still_knows_pods_and_adapters(things: Things) -> None:
    pod, mac = things.machine.pod(), things.machine.plug("out0")
    before = things.machine.vm.picture()
    things.vm.add(mac, BOTH, ROUTES, DNSServerList="10.0.0.10, 10.0.0.11", DNSSuffix="a.b,C")
    things.vm.attach(pod.pid)
    things.restart()
    assert things.vm.provider.dns(NS.upper()) == (("10.0.0.10", "10.0.0.11"), ("a.b", "c"))
    second = things.machine.plug("out1")
    things.vm.add(second, ["10.2.0.2/24"])
    assert pod.addresses("eth1") == {"10.2.0.2/24"}
    things.restart()
    things.vm.remove(second)
    things.vm.detach()
    things.restart()
    things.vm.remove(mac)
    assert not things.vm.provider.exists(NS)
    assert things.machine.vm.picture()["addresses"] == {"lo": set(), "eth0": set(), "eth1": set()}
    assert before["links"].items() <= things.machine.vm.picture()["links"].items()


def test_a_pod_that_is_gone_after_a_restart_takes_no_adapter(things: Things) -> None:
    pod, mac = things.machine.pod(), things.machine.plug("out0")
    things.vm.add(mac, BOTH)
    things.vm.attach(pod.pid)
    things.restart()
    pod.end()
    second = things.machine.plug("out1")
    with pytest.raises(Failed, match="no such process"):
        things.vm.add(second, ["10.2.0.2/24"])
    things.vm.remove(mac)
    things.vm.detach()
    assert not things.vm.provider.exists(NS)


def test_a_pod_may_come_before_the_first_adapter_of_its_namespace(things: Things) -> None:
    pod = things.machine.pod()
    things.vm.attach(pod.pid)
    assert things.vm.provider.exists(NS.upper())
    mac = things.machine.plug("out0")
    things.vm.add(mac, BOTH)
    assert pod.addresses("eth0") == set(BOTH)
    things.vm.remove(mac)
    assert things.vm.provider.exists(NS), "the pod is there"
    things.vm.detach()
    assert not things.vm.provider.exists(NS)


def test_taking_away_what_is_not_known_does_nothing(things: Things) -> None:
    things.vm.detach()
    things.vm.remove("02:00:00:00:00:01")
    with pytest.raises(NamespaceNotFound):
        things.vm.provider.dns(NS)


def test_a_process_that_is_gone_gets_no_adapter(things: Things) -> None:
    pod, mac = things.machine.pod(), things.machine.plug("out0")
    things.vm.add(mac, BOTH)
    pod.end()
    with pytest.raises(Failed, match=f"the network namespace of process {pod.pid}: no such process"):
        things.vm.attach(pod.pid)
    things.vm.remove(mac)
