"""Addresses for an adapter to which the host gave none: a DHCP client, run to its first lease.

The client only tells what it got. What is set up is ours, so it can be recorded and undone.
"""

from __future__ import annotations

import os
import re
import time
from ipaddress import IPv4Address
from typing import Final

from uvmd.api import Environment
from uvmd.errors import DeadlineExceeded, Failed
from uvmd_network.layout import LOW_METRIC, MAIN_TABLE, POLICY_TABLE, Address, Layout, Route, Rule

_SCRIPT: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "dhcp-lease")
_FOLDERS: Final = ("/sbin", "/usr/sbin", "/bin", "/usr/bin")
#: Discoveries are sent this often; the limit of all is the deadline.
_RETRY_S: Final = 2
_LEASE: Final = re.compile(r"^lease ip=(\S+) prefix=([0-9]{1,2}) routers=(.*)$", re.MULTILINE | re.ASCII)


def find_client(folders: tuple[str, ...] = _FOLDERS) -> list[str]:
    """Return how the DHCP client is called.

    Raises:
        Failed: there is none.
    """
    for name, words in (("udhcpc", []), ("busybox", ["udhcpc"])):
        for folder in folders:
            if os.access(f"{folder}/{name}", os.X_OK):
                return [f"{folder}/{name}", *words]
    raise Failed("DHCP: there is no udhcpc and no busybox in this VM")


def lease(env: Environment, interface: str, namespace: int | None, *, low_metric: bool) -> Layout:
    """Return what the network's DHCP server gives to an interface that is up.

    Args:
        namespace: a descriptor of the interface's network namespace; None for the VM's.

    Raises:
        DeadlineExceeded: no lease in ``dhcp_timeout_s``.
        Failed: there is no client, or it failed.
    """
    timeout_s = env.config.dhcp_timeout_s
    options = ["-f", "-q", "-n", "-t", str(round(timeout_s / _RETRY_S) + 1), "-T", str(_RETRY_S)]
    argv = [*find_client(), *options, "-i", interface, "-s", _SCRIPT]
    fds: tuple[int, ...] = ()
    if namespace is not None:
        argv, fds = ["nsenter", "--net=/proc/self/fd/3", "--", *argv], (namespace,)
    try:
        done = env.run(argv, deadline=time.monotonic() + timeout_s, fds=fds)
    except OSError as error:
        raise Failed(f"DHCP on {interface}: {argv[0]}: {error.strerror}") from error
    output = done.output.decode(errors="replace")
    if done.timed_out:
        raise DeadlineExceeded(f"DHCP on {interface}: no lease within {timeout_s:g} s")
    if done.status != 0:
        last = (output.strip().splitlines() or [""])[-1]
        raise Failed(f"DHCP on {interface}: the client ended with {done.status}: {last:.200}")
    return parse_lease(output, interface, low_metric=low_metric)


def parse_lease(output: str, interface: str, *, low_metric: bool = False) -> Layout:
    """Read the last lease that the client told of.

    Raises:
        Failed: it told of none, or of one that makes no sense.
    """
    found = _LEASE.findall(output)
    if not found:
        raise Failed(f"DHCP on {interface}: the client told of no lease")
    ip, prefix, routers = found[-1]
    try:
        address = Address(str(IPv4Address(ip)), int(prefix))
        gateways = [str(IPv4Address(one)) for one in routers.split()]
    except ValueError as error:
        raise Failed(f"DHCP on {interface}: not a lease of IPv4") from error
    if address.prefix > 32:
        raise Failed(f"DHCP on {interface}: a prefix length of {prefix}")
    table, metric = (POLICY_TABLE, LOW_METRIC) if low_metric else (MAIN_TABLE, 0)
    return Layout(
        (address,),
        (Rule(address.address),) if low_metric else (),
        # The first is the one to use (RFC 2132, 3.5).
        tuple(Route("0.0.0.0/0", one, metric, table) for one in gateways[:1]),
    )
