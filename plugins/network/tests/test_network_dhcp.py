"""Addresses from a real DHCP server, by the real client, in a pod's network namespace (root)."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from support.network import Machine, Space, machine
from uvmd.api.testing import FakePlatform, Finished, Workbench, fake_environment
from uvmd.api.transaction import transaction
from uvmd.errors import DeadlineExceeded
from uvmd_network import plugin
from uvmd_network.config import NetworkConfig
from uvmd_network.provider import Provider

pytestmark = pytest.mark.root

NS = "dhcp"


def run(
    argv: Sequence[str],
    *,
    deadline: float,
    stdin: bytes = b"",
    fds: Sequence[int] = (),
    limit_bytes: int = 65536,
) -> Finished:
    """As the monitor does it, but for the numbers of descriptors: they stay what they are."""
    words = [word.replace("/fd/3", f"/fd/{fds[0]}") if fds else word for word in argv]
    try:
        done = subprocess.run(
            words,
            pass_fds=fds,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=deadline - time.monotonic(),
            env={"PATH": "/sbin:/usr/sbin:/bin:/usr/bin"},
        )
    except subprocess.TimeoutExpired:
        return Finished(-9, b"", True)
    return Finished(done.returncode, done.stdout[:limit_bytes])


class Things:
    def __init__(self, made: Machine, folder: Path) -> None:
        self.machine, self.folder = made, folder
        config = NetworkConfig(adapter_timeout_s=0.3, dhcp_timeout_s=8)
        platform = FakePlatform(sys_root=str(made.sys_root))
        environment = fake_environment(config, platform=platform, run=run)
        self.bench = Workbench(plugin.resource_types(), environment)
        self.provider = Provider(environment)
        self.mac = made.plug("out0")
        self.add = lambda: self.bench.add("Network", {"NamespaceID": NS, "ID": self.mac})

    def attach(self, pid: int) -> None:
        def change() -> None:
            with transaction() as undo:
                if pid:
                    self.provider.attach(NS, pid, undo)
                else:
                    self.provider.attach_host(NS, undo)

        self.machine.vm.inside(change)

    def detach(self) -> None:
        self.machine.vm.inside(lambda: self.provider.detach(NS))

    def server(self) -> subprocess.Popen[bytes]:
        outside, leases = self.machine.outside, self.folder / "leases"
        outside.ip("addr", "add", "10.5.0.1/24", "dev", "out0")
        leases.touch()
        (self.folder / "udhcpd.conf").write_text(
            f"start 10.5.0.50\nend 10.5.0.59\ninterface out0\nlease_file {leases}\n"
            f"pidfile {self.folder}/pid\noption subnet 255.255.255.0\noption router 10.5.0.1\n"
        )
        argv = ["busybox", "udhcpd", "-f", f"{self.folder}/udhcpd.conf"]
        quiet = subprocess.DEVNULL
        return outside.inside(lambda: subprocess.Popen(argv, stdin=quiet, stdout=quiet, stderr=quiet))


@pytest.fixture
def things(tmp_path: Path) -> Iterator[Things]:
    with machine(tmp_path / "sys") as made:
        yield Things(made, tmp_path)


def check(where: Space) -> None:
    (address,) = where.addresses("eth0")
    assert address.startswith("10.5.0.5")
    assert address.endswith("/24")
    assert {one.removesuffix(" linkdown") for one in where.routes()} == {"default via 10.5.0.1 dev eth0"}


def test_a_lease_is_set_up_in_the_pod_and_taken_away_with_it(things: Things) -> None:
    server, pod = things.server(), things.machine.pod()
    try:
        before = things.machine.vm.picture()
        things.add()
        things.attach(pod.pid)
        check(pod)
        things.detach()
        assert things.machine.vm.picture() == before
        things.attach(0)
        check(things.machine.vm)
        things.detach()
        assert things.machine.vm.picture() == before
    finally:
        server.kill()
        server.wait()


@pytest.mark.slow
def test_without_a_server_the_pod_fails_in_time_and_the_adapter_is_back(things: Things) -> None:
    pod = things.machine.pod()
    before = things.machine.vm.picture(), pod.picture()
    things.add()
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="DHCP on eth0: no lease within 8 s"):
        things.attach(pod.pid)
    assert time.monotonic() - began < 9
    assert (things.machine.vm.picture(), pod.picture()) == before
