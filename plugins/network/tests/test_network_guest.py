"""Adapters that are hot-plugged into a VM: virtio NICs on one hub, found by MAC and by PCI address."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from guest.harness.code import ROOTFS
from guest.harness.guest import Guest
from support.containers import new_id
from support.host import NULL_ID
from support.pods import Pod, sandbox_spec
from uvmd.api.testing.guest.devices import PciDevice
from uvmd.api.testing.guest.leaks import assert_nothing_left, holdings
from uvmd.api.testing.guest.profiles import PROFILES, Profile

NS = "6f2a0e8a-3f0f-4c6e-9d57-0b5cb1b4a001"
GUID = "2a1e7c36-31c5-4bd4-8d2f-9c3e5a0b7d11"
MACS = ("02:75:76:6d:00:01", "02:75:76:6d:00:02")


@pytest.fixture(scope="module")
def profile(request: pytest.FixtureRequest) -> Profile:
    """A test says which versions of cgroups it wants; adapters do not care, so most are content with one."""
    return PROFILES[getattr(request, "param", "v2")]


def plug(guest: Guest, at: int) -> PciDevice:
    """Plug a NIC into a spare port and into the hub that all of them share."""
    guest.machine.qmp("netdev_add", type="hubport", id=f"hub{at}", hubid=0)
    device = guest.add_pci("virtio-net-pci", port=f"rp{at + 1}", mac=MACS[at], netdev=f"hub{at}")
    device.after_removal("netdev_del", id=f"hub{at}")
    return device


@pytest.fixture
def guest(fresh_guest: Guest) -> Iterator[Guest]:
    """A guest in which an adapter has been before: the files of the first one stay."""
    first = plug(fresh_guest, 0)
    fresh_guest.bridge.modify(NULL_ID, "Network", settings=settings(MACS[0], 1))
    remove(fresh_guest, MACS[0])
    first.remove()
    before = fresh_guest.call(holdings)
    yield fresh_guest
    assert_nothing_left(fresh_guest, before)
    fresh_guest.assert_kernel_is_calm()


@pytest.fixture
def nics(guest: Guest) -> Iterator[list[PciDevice]]:
    plugged: list[PciDevice] = []
    yield plugged
    for device in plugged:
        device.remove()


def settings(id: str, at: int, **more: Any) -> dict[str, Any]:
    return {
        "NamespaceID": NS,
        "ID": id,
        "IPConfigs": [
            {"IPAddress": f"10.{at}.0.2", "PrefixLength": 24},
            {"IPAddress": f"fd0{at}::2", "PrefixLength": 64},
        ],
        "Routes": [{"DestinationPrefix": "0.0.0.0/0", "NextHop": f"10.{at}.0.1"}],
        "PolicyBasedRouting": True,
        "EncapOverhead": 50,
        **more,
    }


def sandbox(guest: Guest) -> Pod:
    pod_id = new_id()
    spec = sandbox_spec(pod_id, root=ROOTFS) | {"windows": {"network": {"networkNamespace": NS}}}
    guest.bridge.create(pod_id, spec)
    guest.bridge.start(pod_id)
    return Pod(guest.bridge, pod_id, guest.bridge.execute(pod_id))


def interfaces() -> dict[str, str]:
    """The VM's own adapters: name by MAC address; runs in the guest."""
    import os

    found = {}
    for name in os.listdir("/sys/class/net"):
        with open(f"/sys/class/net/{name}/address", encoding="ascii") as file:
            found[file.read().strip()] = name
    return found


def remove(guest: Guest, id: str) -> None:
    guest.bridge.modify(NULL_ID, "Network", "Remove", {"NamespaceID": NS, "ID": id})


@pytest.mark.parametrize("profile", ["v2", "v1"], indirect=True)
def test_hot_plugged_adapters_go_to_the_pod_and_come_back(guest: Guest, nics: list[PciDevice]) -> None:
    nics.append(plug(guest, 0))
    # Not waited for: the request finds an adapter that is still on its way.
    guest.bridge.modify(NULL_ID, "Network", settings=settings(GUID, 1, MacAddress=MACS[0].replace(":", "-")))
    pod = sandbox(guest)
    shown = pod.run("ip -o addr; ip link; ip route", root=ROOTFS).decode()
    for text in ("10.1.0.2/24", "fd01::2/64", "mtu 1450", "default via 10.1.0.1"):
        assert text in shown
    assert MACS[0] not in guest.call(interfaces)
    nics.append(plug(guest, 1))
    more = {"DNSServerList": "10.2.0.53", "DNSSuffix": "svc.local"}
    guest.bridge.modify(NULL_ID, "Network", settings=settings(MACS[1], 2, **more))
    shown = pod.run("ip -o addr; ip route show table 101; cat /etc/resolv.conf", root=ROOTFS).decode()
    assert "10.2.0.2/24" in shown
    assert "default via 10.2.0.1" in shown
    assert "search svc.local\nnameserver 10.2.0.53\n" in shown
    # Pulled out before the host says so, and the other way round.
    nics.pop().remove()
    remove(guest, MACS[1])
    remove(guest, GUID)
    assert MACS[0] in guest.call(interfaces)
    pod.close()


def test_an_adapter_is_found_at_its_pci_address_and_survives_its_pod(
    guest: Guest, nics: list[PciDevice]
) -> None:
    nics.append(plug(guest, 0))
    guest.wait_until(interfaces)
    address = nics[0].wait()
    guest.bridge.modify(NULL_ID, "Network", settings=settings(address, 1))
    for _ in range(2):
        pod = sandbox(guest)
        assert "10.1.0.2/24" in pod.run("ip -o addr", root=ROOTFS).decode()
        pod.close()
        name = guest.call(interfaces)[MACS[0]]
        assert "mtu 1500" in guest.sh(f"ip link show {name}")
    remove(guest, address)


def test_two_pods_talk_to_each_other(guest: Guest, nics: list[PciDevice]) -> None:
    other = NS.replace("6", "7")
    nics.append(plug(guest, 0))
    nics.append(plug(guest, 1))
    guest.bridge.modify(NULL_ID, "Network", settings=settings(MACS[0], 1))
    address = [{"IPAddress": "10.1.0.3", "PrefixLength": 24}]
    more = {"NamespaceID": other, "IPConfigs": address, "Routes": []}
    guest.bridge.modify(NULL_ID, "Network", settings=settings(MACS[1], 1, **more))
    one, pod_id = sandbox(guest), new_id()
    spec = sandbox_spec(pod_id, root=ROOTFS) | {"windows": {"network": {"networkNamespace": other}}}
    guest.bridge.create(pod_id, spec)
    guest.bridge.start(pod_id)
    two = Pod(guest.bridge, pod_id, guest.bridge.execute(pod_id))
    serving = two.create("/bin/nc", "-l", "-p", "8080", "-e", "/bin/echo", "hello", root=ROOTFS)
    guest.bridge.start(serving.id)
    serving.init()
    asking = "for i in $(seq 100); do nc 10.1.0.3 8080 </dev/null && exit; sleep 0.05; done; exit 9"
    assert one.run(asking, root=ROOTFS) == b"hello\n"
    two.close()
    one.close()
    remove(guest, MACS[0])
    guest.bridge.modify(NULL_ID, "Network", "Remove", {"NamespaceID": other, "ID": MACS[1]})


def test_an_adapter_without_addresses_gets_a_lease(guest: Guest) -> None:
    # QEMU's own network for users has a DHCP server: the address .15 and the router .2.
    guest.machine.qmp("netdev_add", type="user", id="lan", net="10.9.0.0/24")
    nic = guest.add_pci("virtio-net-pci", port="rp3", mac=MACS[1], netdev="lan")
    nic.after_removal("netdev_del", id="lan")
    wanted = settings(MACS[1], 1, IPConfigs=[], Routes=[], EncapOverhead=0)
    guest.bridge.modify(NULL_ID, "Network", settings=wanted)
    pod = sandbox(guest)
    shown = pod.run("ip -o addr; ip route", root=ROOTFS).decode()
    assert "10.9.0.15/24" in shown
    assert "default via 10.9.0.2 dev" in shown
    # The same adapter goes and comes back while the pod runs.
    remove(guest, MACS[1])
    assert "10.9.0.15" not in pod.run("ip -o addr", root=ROOTFS).decode()
    guest.bridge.modify(NULL_ID, "Network", settings=wanted)
    assert "10.9.0.15/24" in pod.run("ip -o addr", root=ROOTFS).decode()
    pod.close()
    remove(guest, MACS[1])
    nic.remove()


def test_an_adapter_that_never_appears_is_given_up(guest: Guest) -> None:
    with pytest.raises(Exception, match=r"did not come within 5\.0 s"):
        guest.bridge.modify(NULL_ID, "Network", settings=settings(MACS[0], 1))
