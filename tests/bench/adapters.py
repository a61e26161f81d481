"""An adapter added to a running pod, beside the same requests to the kernel by a client that is warm."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from report import Figure, milliseconds
from stances import Stance

from support.containers import new_id
from support.host import NULL_ID, Connection
from support.network import Machine, machine
from support.network_daemon import running_in
from support.pods import Pod, sandbox_spec
from uvmd_network.kernel import Links, Linux
from uvmd_network.layout import Address, Layout, Route

NAMESPACE = "bench"
LAYOUT = Layout(
    (Address("10.77.0.2", 24), Address("fd77::2", 64)),
    (),
    (
        Route("10.78.0.0/16", "10.77.0.1"),
        Route("10.79.0.0/16", "10.77.0.1", 20),
        Route("fd78::/64", "fd77::1"),
    ),
)
#: What the adapter has with which the pod begins.
FIRST: dict[str, Any] = {"IPConfigs": [{"IPAddress": "10.1.0.2", "PrefixLength": 24}], "Routes": []}


def settings(mac: str) -> dict[str, Any]:
    return {
        "NamespaceID": NAMESPACE,
        "ID": mac,
        "IPConfigs": [{"IPAddress": one.address, "PrefixLength": one.prefix} for one in LAYOUT.addresses],
        "Routes": [
            {"DestinationPrefix": one.destination, "NextHop": one.gateway, "Metric": one.metric}
            for one in LAYOUT.routes
        ],
        "EncapOverhead": 50,
    }


@contextmanager
def networked_pod(stance: Stance) -> Iterator[tuple[Machine, Connection]]:
    """A daemon and a pod in a machine of their own."""
    # On tmpfs, as /run is in a VM: renaming over a file waits for a disk elsewhere.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, machine(Path(folder) / "sys") as made:
        with running_in(made, folder=Path(folder), options=stance.options) as daemon:
            bridge = stance.connect(daemon)
            pod_id = new_id()
            spec = sandbox_spec(pod_id) | {"windows": {"network": {"networkNamespace": NAMESPACE}}}
            first = made.plug("first")
            bridge.modify(NULL_ID, "Network", settings=settings(first) | FIRST)
            bridge.create(pod_id, spec)
            bridge.start(pod_id)
            pod = Pod(bridge, pod_id, bridge.execute(pod_id))
            yield made, bridge
            pod.close()
            bridge.modify(NULL_ID, "Network", "Remove", {"NamespaceID": NAMESPACE, "ID": first})
            bridge.close()


def through_the_bridge(bridge: Connection, mac: str) -> float:
    began = time.perf_counter()
    bridge.modify(NULL_ID, "Network", settings=settings(mac))
    took = time.perf_counter() - began
    bridge.modify(NULL_ID, "Network", "Remove", {"NamespaceID": NAMESPACE, "ID": mac})
    return took


def alone(vm: Links, inside: Links, there: int, back: int, name: str) -> float:
    """What the daemon asks of the kernel, over sockets that are open."""
    began = time.perf_counter()
    link = vm.link(name)
    vm.move(link.number, there, name)
    number = inside.link(name).number
    inside.configure(number, mtu=link.mtu - 50, up=True)
    for address in LAYOUT.addresses:
        inside.add_address(number, address)
    for route in LAYOUT.routes:
        inside.add_route(number, route)
    took = time.perf_counter() - began
    inside.configure(number, mtu=link.mtu)
    inside.move(number, back, name)
    return took


def added_to_a_pod(stance: Stance, count: int) -> Figure:
    """Both in turn, with one adapter, so that a change of the machine's mood is shared."""
    with networked_pod(stance) as (made, bridge), ExitStack() as held:
        mac, pod = made.plug("out"), made.pod()
        (name,) = made.vm.names()
        vm = held.enter_context(closing(Linux.links(made.vm.fd)))
        inside = held.enter_context(closing(Linux.links(pod.fd)))
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(count + 1):
            ours.append(through_the_bridge(bridge, mac))
            theirs.append(alone(vm, inside, pod.fd, made.vm.fd, name))
        ratio = statistics.median(ours[1:]) / statistics.median(theirs[1:])
    ours_ms, theirs_ms = milliseconds(ours[1:]), milliseconds(theirs[1:])
    return Figure(
        "adapter added to a running pod (move, 2 addresses, 3 routes), divided by the netlink requests",
        1.5,
        ratio,
        "",
        f"{ours_ms:.2f} ms, alone {theirs_ms:.2f} ms; the first {ours[0] * 1000:.0f} ms",
        count,
    )
