"""Pods with a network in the real daemon, in a host's order, with both runtimes (root)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.containers import Container, new_id
from support.daemon import Daemon
from support.host import NULL_ID, Connection, Refused, code
from support.leaks import Snapshot, assert_nothing_left
from support.network import Machine, machine
from support.network_daemon import running_in
from support.pods import Pod, sandbox_spec

pytestmark = [pytest.mark.root, pytest.mark.system]

NS = "6F2A0E8A-3f0f-4c6e-9d57-0b5cb1b4a001"
NETWORK = {"network": {"networkNamespace": NS}}


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Machine]:
    with machine(tmp_path / "sys") as one:
        yield one


@pytest.fixture(params=["crun", "runc"])
def daemon(request: pytest.FixtureRequest, made: Machine) -> Iterator[Daemon]:
    with running_in(made, runtime=request.param, options={"plugins-require": "network"}) as started:
        yield started


@pytest.fixture
def bridge(daemon: Daemon) -> Iterator[Connection]:
    connection = daemon.connect()
    yield connection
    connection.close()


def settings(mac: str, at: int, **more: Any) -> dict[str, Any]:
    return {
        "NamespaceID": NS,
        "ID": mac,
        "IPConfigs": [{"IPAddress": f"10.{at}.0.2", "PrefixLength": 24}],
        "Routes": [{"DestinationPrefix": "0.0.0.0/0", "NextHop": f"10.{at}.0.1"}],
        "PolicyBasedRouting": True,
        "DNSServerList": f"10.{at}.0.53",
        "DNSSuffix": "svc.local",
        **more,
    }


def add(bridge: Connection, mac: str, at: int, **more: Any) -> None:
    bridge.modify(NULL_ID, "Network", settings=settings(mac, at, **more))


def remove(bridge: Connection, mac: str) -> None:
    bridge.modify(NULL_ID, "Network", "Remove", {"NamespaceID": NS.lower(), "ID": mac})


def pod_in(bridge: Connection, **annotations: str) -> Pod:
    pod_id = new_id()
    spec = sandbox_spec(pod_id, annotations=annotations) | {"windows": NETWORK}
    bridge.create(pod_id, spec)
    bridge.start(pod_id)
    return Pod(bridge, pod_id, bridge.execute(pod_id))


def once(bridge: Connection, mac: str) -> None:
    """A whole life, so that what stays from the first one on is there before anything is counted."""
    add(bridge, mac, 1)
    pod_in(bridge).close()
    remove(bridge, mac)


def shown(pod: Pod) -> str:
    return pod.run("ip -o -4 addr; ip route; cat /etc/resolv.conf").decode()


def name_servers(container: Container) -> str:
    asked = container.exec("/bin/cat", "/etc/resolv.conf", stdout=True)
    assert asked.wait() == 0
    return bytes(asked.stdout.read_all()).decode()


def test_a_pod_has_the_adapters_of_its_namespace_and_more_may_come(
    made: Machine, daemon: Daemon, bridge: Connection
) -> None:
    macs = [made.plug("out0")]
    once(bridge, macs[0])
    before, alone = Snapshot.take(daemon), made.vm.picture()
    add(bridge, macs[0], 1, EncapOverhead=50)
    with pytest.raises(Refused, match="is already in namespace"):
        add(bridge, macs[0], 1)
    pod = pod_in(bridge)
    text = shown(pod)
    assert "10.1.0.2/24" in text
    assert "default via 10.1.0.1 dev eth0" in text
    assert text.endswith("search svc.local\nnameserver 10.1.0.53\n")
    beside = pod.create("/bin/sleep", "600")
    bridge.start(beside.id)
    beside.init()
    macs.append(made.plug("out1"))
    add(bridge, macs[1], 2)
    assert "10.2.0.2/24" in shown(pod)
    assert "default via 10.2.0.1 dev eth1" in pod.run("ip route show table 101").decode()
    # Also where the file is bound since before.
    assert name_servers(beside) == "search svc.local\nnameserver 10.1.0.53\nnameserver 10.2.0.53\n"
    remove(bridge, macs[1])
    assert "10.2.0.2" not in shown(pod)
    assert name_servers(beside) == "search svc.local\nnameserver 10.1.0.53\n"
    pod.close()
    remove(bridge, macs[0])
    remove(bridge, macs[0])
    found = made.vm.picture()
    assert (found["links"].pop("eth0"), found["addresses"].pop("eth0")) == ((1500, False), set())
    assert found["links"].keys() == {"lo", "eth1"}
    assert alone["routes"] == found["routes"]
    assert_nothing_left(daemon, before)


def test_a_container_of_the_pod_is_reached_from_outside(made: Machine, bridge: Connection) -> None:
    mac = made.plug("out0")
    made.outside.ip("addr", "add", "10.1.0.1/24", "dev", "out0")
    add(bridge, mac, 1)
    pod = pod_in(bridge)
    serving = pod.create("/bin/nc", "-l", "-p", "8080", "-e", "/bin/echo", "from the pod")
    bridge.start(serving.id)
    serving.init()
    asking = "for i in $(seq 100); do busybox nc 10.1.0.2 8080 </dev/null && exit; sleep 0.05; done; exit 9"
    assert made.outside.run("sh", "-c", asking) == "from the pod\n"
    pod.close()
    remove(bridge, mac)


def test_a_pod_in_the_vms_network_has_its_adapters_there(made: Machine, bridge: Connection) -> None:
    mac = made.plug("out0")
    before = made.vm.picture()
    add(bridge, mac, 1)
    pod = pod_in(bridge, **{"io.microsoft.virtualmachine.lcow.hostnetwork": "true"})
    assert made.vm.addresses("eth0") == {"10.1.0.2/24"}
    pod.close()
    assert made.vm.picture() == before
    remove(bridge, mac)


def test_a_pod_whose_adapter_cannot_be_set_up_fails_whole_and_can_be_repeated(
    made: Machine, daemon: Daemon, bridge: Connection
) -> None:
    mac = made.plug("out0")
    once(bridge, mac)
    before, alone = Snapshot.take(daemon), made.vm.picture()
    twice = [{"IPAddress": "10.1.0.2", "PrefixLength": 24}] * 2
    add(bridge, mac, 1, IPConfigs=twice)
    with pytest.raises(Refused, match="EEXIST") as caught:
        pod_in(bridge)
    assert code(caught.value.answer) == "E_FAIL"
    assert made.vm.picture() == alone
    remove(bridge, mac)
    once(bridge, mac)
    assert_nothing_left(daemon, before)


def test_a_namespace_that_nobody_knows_has_its_own_code(bridge: Connection) -> None:
    with pytest.raises(Refused, match="is not known") as caught:
        pod_in(bridge)
    assert code(caught.value.answer) == "NOT_FOUND"


def test_the_next_daemon_knows_the_pods_network(made: Machine, daemon: Daemon, bridge: Connection) -> None:
    first = made.plug("out0")
    add(bridge, first, 1)
    pod = pod_in(bridge)
    daemon.kill_daemon()
    again = daemon.connect()
    second = made.plug("out1")
    add(again, second, 2)
    pod.bridge = again
    text = shown(pod)
    assert "10.2.0.2/24" in text
    assert "nameserver 10.1.0.53\nnameserver 10.2.0.53\n" in text
    remove(again, second)
    pod.close()
    remove(again, first)
    names = made.vm.names()
    assert names == {"eth0", "eth1"}
    assert not os.path.exists(f"/proc/{pod.sandbox.pid}")
    again.close()
