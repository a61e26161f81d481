"""Requests and pods on a kernel in memory: what fails where, and that nothing is left of it."""

from __future__ import annotations

import copy
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from support.fake_network import FakeKernel, Space
from uvmd.api import Environment
from uvmd.api.testing import FakePlatform, FakeRun, Finished, MemoryState, Workbench, fake_environment
from uvmd.api.transaction import transaction
from uvmd.errors import DeadlineExceeded, Failed, InvalidMessage, Refused
from uvmd.plugin_manager import load_plugins
from uvmd.plugin_manager.inspection import resolve_all
from uvmd_network import dhcp, plugin
from uvmd_network.config import NetworkConfig
from uvmd_network.kernel import Kernel
from uvmd_network.layout import Rule
from uvmd_network.networks import networks_of
from uvmd_network.provider import Provider

NS = "pod-1"
POD = os.getpid()
MACS = {f"eth{at}": f"02:00:00:00:00:0{at}" for at in range(3)}


class Vm:
    """A daemon on a kernel in memory. ``eth0`` to ``eth2`` are plugged in."""

    def __init__(
        self, folder: Path, kernel: FakeKernel | None = None, state: MemoryState | None = None
    ) -> None:
        self.folder, self.state, self.run = folder, state or MemoryState(), FakeRun()
        self.kernel = kernel or FakeKernel()
        if kernel is None:
            self.kernel.pods[POD] = Space()
            for name, mac in MACS.items():
                self.kernel.plug(name)
                (folder / "class/net" / name).mkdir(parents=True)
                (folder / "class/net" / name / "address").write_text(mac)
        self.environment: Environment = fake_environment(
            NetworkConfig(adapter_timeout_s=0.02),
            platform=FakePlatform(sys_root=str(folder)),
            state=self.state,
            run=self.run,
        )
        checked: Kernel = self.kernel
        self.networks = networks_of(self.environment, checked)
        self.bench = Workbench(plugin.resource_types(), self.environment)
        self.provider = Provider(self.environment)

    def add(self, name: str = "eth0", **more: Any) -> None:
        at = MACS[name][-1]
        settings = {
            "NamespaceID": NS,
            "ID": MACS[name],
            "EncapOverhead": 50,
            "PolicyBasedRouting": True,
            "IPConfigs": [
                {"IPAddress": f"10.{at}.0.2", "PrefixLength": 24},
                {"IPAddress": f"fd0{at}::2", "PrefixLength": 64},
            ],
            "Routes": [
                {"DestinationPrefix": "0.0.0.0/0", "NextHop": f"10.{at}.0.1"},
                {"DestinationPrefix": "::/0", "NextHop": f"fe0{at}::1"},
                {"DestinationPrefix": f"172.{at}.0.0/16"},
            ],
            **more,
        }
        self.bench.add("Network", settings)

    def remove(self, name: str = "eth0") -> None:
        self.bench.remove("Network", {"NamespaceID": NS, "ID": MACS[name]})

    def attach(self, pid: int = POD) -> None:
        with transaction(self.bench.gate.mark) as undo:
            if pid:
                self.provider.attach(NS, pid, undo)
            else:
                self.provider.attach_host(NS, undo)

    def leaks(self) -> tuple[int, int]:
        return self.kernel.sockets, len(self.kernel.open)


@pytest.fixture
def vm(tmp_path: Path) -> Vm:
    return Vm(tmp_path)


def end(vm: Vm, *names: str) -> None:
    vm.provider.detach(NS)
    for name in names:
        vm.remove(name)
    assert vm.leaks() == (0, 0)
    assert not vm.provider.exists(NS)
    assert vm.state.load()["namespaces"] == []
    assert vm.bench.gate.degraded is None


def test_it_declares_what_resolves_and_asks_nothing() -> None:
    (type_,) = plugin.resource_types()
    assert [type_.points_of(verb) for verb in type_.verbs] == [(), ()]
    assert not type_.latched
    plugins = load_plugins(allow=["network"], sections={"network": {"dhcp_timeout_s": 3.0}})
    assert plugins.names("container_network") == ("network",)
    assert len(resolve_all(plugins)) == 1


@pytest.mark.parametrize("strict", [False, True])
def test_before_the_pod_an_adapter_is_known_and_left_alone(vm: Vm, strict: bool) -> None:
    enforcer = vm.bench.be_strict() if strict else None
    before = vm.kernel.picture()
    vm.add(DNSServerList="10.0.0.10, 10.0.0.11 ,10.0.0.10", DNSSuffix="A.b")
    vm.add("eth1", DNSServerList="10.0.0.12", DNSSuffix="c,a.B")
    assert vm.provider.exists("POD-1")
    assert vm.provider.dns("POD-1") == (("10.0.0.10", "10.0.0.11", "10.0.0.12"), ("a.b", "c"))
    assert (vm.kernel.changes, vm.kernel.picture()) == ([], before)
    assert enforcer is None or enforcer.asked == []
    end(vm, "eth0", "eth1")


@pytest.mark.parametrize("pid", [POD, 0])
def test_all_of_it_is_made_once_and_taken_away_again(vm: Vm, pid: int) -> None:
    before = vm.kernel.picture()
    vm.add()
    vm.add("eth1")
    vm.attach(pid)
    space = vm.kernel.pods[POD] if pid else vm.kernel.home
    made = sorted(space.interfaces.values(), key=lambda one: one.name)
    assert [(one.name, one.mtu, one.up) for one in made[:2]] == [("eth0", 1450, True), ("eth1", 1450, True)]
    assert {route.table for _, route in space.routes} == {254, 101}
    assert {rule.table for rule in space.rules} == {101}
    assert [rule.source for rule in space.rules] == ["10.1.0.2", "fd01::2"]
    placed = vm.kernel.picture()
    vm.add("eth2")
    assert space.rules[2:] == [Rule("10.2.0.2", 102), Rule("fd02::2", 102)]
    vm.remove("eth2")
    assert vm.kernel.picture() == placed, "the others were left alone"
    vm.provider.detach(NS)
    assert vm.kernel.picture() == before
    end(vm, "eth0", "eth1")


def every_failure(vm: Vm, act: Any) -> int:
    """Let each of the changes that an action makes fail once; nothing may be left of any of them."""
    before, number = vm.kernel.picture(), 0
    state, leaks = vm.state.load(), vm.leaks()
    while True:
        number += 1
        vm.kernel.changes.clear()
        vm.kernel.fail_at = number
        try:
            act()
        except Failed as error:
            said = str(error)
        else:
            return number
        finally:
            vm.kernel.fail_at = None
        assert "(EPERM)" in said
        assert vm.kernel.picture() == before, f"after {vm.kernel.changes[:number]}"
        assert vm.state.load() == state
        assert vm.leaks() == leaks
        assert vm.bench.gate.degraded is None


@pytest.mark.parametrize("pid", [POD, 0])
def test_whatever_step_of_a_pod_or_an_adapter_fails_all_of_it_is_undone(vm: Vm, pid: int) -> None:
    before = vm.kernel.picture()
    vm.add()
    vm.add("eth1")
    assert every_failure(vm, lambda: vm.attach(pid)) > 16
    assert every_failure(vm, lambda: vm.add("eth2")) > 8
    assert every_failure(vm, lambda: vm.remove("eth2")) > 3
    vm.provider.detach(NS)
    assert vm.kernel.picture() == before
    end(vm, "eth0", "eth1")


@pytest.mark.parametrize("pid", [POD, 0])
def test_a_daemon_that_dies_in_the_middle_leaves_what_the_next_one_can_take_away(vm: Vm, pid: int) -> None:
    before = vm.kernel.picture()
    dead: list[tuple[FakeKernel, dict[str, Any]]] = []

    class Watched(FakeKernel):
        def change(self, what: str) -> None:
            kernel = FakeKernel()
            kernel.home, kernel.pods = copy.deepcopy((self.home, self.pods))
            dead.append((kernel, vm.state.load()))
            super().change(what)

    vm.kernel.__class__ = Watched
    vm.add()
    vm.attach(pid)
    vm.add("eth1")
    vm.remove("eth1")
    assert len(dead) > 20
    for kernel, kept in dead:
        state = MemoryState()
        state.save(kept)
        after = Vm(vm.folder, kernel, state)
        for name in ("eth1", "eth0"):
            after.remove(name)
        after.provider.detach(NS)
        assert after.kernel.picture() == before
        assert after.leaks() == (0, 0)
        assert not after.provider.exists(NS)
    end(vm, "eth0")


def test_an_undo_that_fails_is_told_and_the_first_error_stays(vm: Vm) -> None:
    vm.attach()

    class Stuck(FakeKernel):
        def change(self, what: str) -> None:
            super().change(what)
            if what.startswith("no address"):
                raise OSError(errno.EBUSY, "Device or resource busy")

    vm.kernel.__class__ = Stuck
    vm.kernel.changes.clear()
    vm.kernel.fail_at = 5
    with pytest.raises(Failed, match=r"\(EPERM\)"):
        vm.add()
    assert "busy" in (vm.bench.gate.degraded or "")


def test_a_pod_that_is_gone_is_forgotten_by_the_next_one(vm: Vm) -> None:
    vm.add()
    vm.kernel.pods[1] = Space()
    with transaction() as undo:
        vm.provider.attach(NS, 1, undo)
    known = vm.networks.table.find(NS)
    assert known is not None
    known.started += 1  # the pid is another process's now
    vm.attach()
    assert vm.kernel.pods[1].picture() == Space().picture()
    assert len(vm.kernel.pods[POD].interfaces) == 1
    with pytest.raises(Refused, match="has a pod already"):
        vm.attach()
    end(vm, "eth0")


def test_an_adapter_is_in_one_namespace_once(vm: Vm) -> None:
    vm.add()
    for more in ({}, {"NamespaceID": "another"}, {"ID": MACS["eth0"].replace(":", "-")}):
        with pytest.raises(Refused, match=r"adapter 02:00:00:00:00:00 is already in namespace pod-1"):
            vm.add(**more)
    vm.bench.remove("Network", {"NamespaceID": "another", "ID": MACS["eth0"]})
    assert vm.networks.knows(NS, MACS["eth0"])
    end(vm, "eth0")


@pytest.mark.parametrize(
    ("more", "error", "text"),
    [
        ({"NamespaceID": ""}, Refused, "NamespaceID"),
        ({"ID": "../../etc"}, Refused, "ID is not a GUID"),
        ({"IPConfigs": [{"IPAddress": "ten", "PrefixLength": 8}]}, Refused, r"IPConfigs\[0\]\.IPAddress"),
        ({"Routes": [{"DestinationPrefix": "0.0.0.0/0"}]}, Refused, r"Routes\[0\]\.NextHop"),
        ({"DNSSuffix": "a\nnameserver 1.2.3.4"}, Refused, "DNSSuffix"),
        ({"DNSServerList": "1.2.3.4 x"}, Refused, "DNSServerList"),
        ({"EncapOverhead": "50"}, InvalidMessage, "EncapOverhead"),
        ({"ID": "02:00:00:00:00:99"}, DeadlineExceeded, "did not come within"),
    ],
)
def test_a_bad_request_names_what_is_wrong_and_leaves_nothing(
    vm: Vm, more: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        vm.add(**more)
    assert vm.kernel.changes == []
    assert not vm.provider.exists(NS)


def test_an_overhead_that_leaves_no_mtu_is_refused_with_the_pod(vm: Vm) -> None:
    vm.add(EncapOverhead=1450)
    with pytest.raises(Refused, match="leaves less than 68 of the MTU 1500"):
        vm.attach()
    assert vm.kernel.changes == []
    end(vm, "eth0")


def test_other_request_types_are_refused(vm: Vm) -> None:
    with pytest.raises(Refused, match="Update"):
        vm.bench.request("Update", "Network", {"NamespaceID": NS, "ID": MACS["eth0"]})


def leased(argv: Sequence[str]) -> Finished:
    return Finished(output=b"lease ip=10.9.0.7 prefix=24 routers=10.9.0.1\n")


def client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dhcp, "find_client", lambda: ["/sbin/udhcpc"])


@pytest.mark.parametrize("pid", [POD, 0])
def test_an_adapter_without_addresses_gets_a_lease(vm: Vm, pid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    client(monkeypatch)
    before = vm.kernel.picture()
    vm.run.answer = leased
    vm.add(IPConfigs=[])
    assert every_failure(vm, lambda: vm.attach(pid)) > 3
    space = vm.kernel.pods[POD] if pid else vm.kernel.home
    assert [(one.address, one.prefix) for one in space.interfaces[space.by_name("eth0")].addresses] == [
        ("10.9.0.7", 24)
    ]
    assert [route.gateway for _, route in space.routes] == ["10.9.0.1"]
    argv = vm.run.calls[-1]
    assert argv[:3] == ("nsenter", "--net=/proc/self/fd/3", "--") if pid else argv[0] == "/sbin/udhcpc"
    vm.provider.detach(NS)
    assert vm.kernel.picture() == before
    end(vm, "eth0")


@pytest.mark.parametrize(
    ("ended", "error", "text"),
    [
        (Finished(-9, timed_out=True), DeadlineExceeded, "DHCP on eth0: no lease within 30 s"),
        (
            Finished(1, b"no lease, failing\n"),
            Failed,
            "DHCP on eth0: the client ended with 1: no lease, failing",
        ),
        (Finished(0, b"nothing"), Failed, "told of no lease"),
        (Finished(0, b"lease ip=x prefix=1 routers=\n"), Failed, "not a lease of IPv4"),
    ],
)
def test_without_a_lease_there_is_no_pod_and_the_adapter_is_back(
    vm: Vm, ended: Finished, error: type[Exception], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client(monkeypatch)
    before = vm.kernel.picture()
    vm.run.answer = lambda argv: ended
    vm.add(IPConfigs=[])
    with pytest.raises(error, match=text):
        vm.attach()
    assert vm.kernel.picture() == before
    end(vm, "eth0")


def test_a_vm_without_a_client_says_so(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="no udhcpc and no busybox"):
        dhcp.find_client((str(tmp_path),))
    (tmp_path / "busybox").touch(0o755)
    assert dhcp.find_client((str(tmp_path),)) == [f"{tmp_path}/busybox", "udhcpc"]


def test_a_state_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    state = MemoryState()
    state.save({"v": 2, "namespaces": []})
    environment = fake_environment(NetworkConfig(), state=state)
    with pytest.raises(Failed, match="state cannot be read: ValueError"):
        Provider(environment)
