"""Containers in the guest, over the default transport, on both versions of cgroups."""

from __future__ import annotations

import pytest

from guest.harness.code import ROOTFS
from guest.harness.guest import Guest
from support.containers import created, shell
from uvmd.api.testing.guest.leaks import assert_nothing_left, holdings
from uvmd.api.testing.guest.profiles import PROFILES, Profile


@pytest.fixture(scope="module", params=["v2", "v1"])
def profile(request: pytest.FixtureRequest) -> Profile:
    return PROFILES[request.param]


def test_a_container_runs_over_the_default_transport(guest: Guest) -> None:
    assert '"transport":"vsock"' in guest.daemon.log()
    ran = guest.run(*shell("read line; echo out $line; echo err >&2; exit 7"), stdin=b"hello\n")
    assert (ran.exit_code, ran.stdout, ran.stderr) == (7, b"out hello\n", b"err\n")


def test_its_processes_are_in_its_cgroup(guest: Guest, profile: Profile) -> None:
    with created(guest.bridge, "/bin/sleep", "60", root=ROOTFS) as container:
        init = container.init()
        lines = guest.read(f"/proc/{init.pid}/cgroup").splitlines()
        memory = "0::" if profile.cgroups == "v2" else ":memory:"
        assert any(memory in line and line.endswith(f"/pods/{container.id}") for line in lines), lines
        statistics = guest.bridge.properties(container.id, "Statistics")["LCOWMetrics"]
        assert statistics["memory"]["usage"]["usage"] > 0
        assert statistics["pids"]["current"] == 1


def test_the_daemon_may_be_killed_while_a_container_runs(guest: Guest) -> None:
    with created(guest.bridge, *shell("read line; exit 5"), root=ROOTFS) as container:
        init = container.init(stdin=True)
        assert init.stdin.connection is not None  # our end is there before the daemon dies
        killed = guest.daemon.kill()
        guest.daemon.wait_for_another(killed)
        guest.hang_up()
        container.bridge = guest.bridge
        exec_ = container.exec(*shell("echo still here"), stdout=True)
        assert (exec_.wait(), exec_.stdout.read_all()) == (0, b"still here\n")
        init.stdin.write(b"now\n")
        assert guest.bridge.wait(container.id, init.pid) == 5
        container.delete()


def test_the_other_runtime_works_as_well(fresh_guest: Guest) -> None:
    fresh_guest.daemon.restart({"runtime-name": "runc"})
    before = fresh_guest.call(holdings)
    assert fresh_guest.run(*shell("echo $0 $$; exit 3")).exit_code == 3
    assert_nothing_left(fresh_guest, before)


def test_the_bridge_may_be_a_unix_socket(fresh_guest: Guest) -> None:
    fresh_guest.daemon.restart({"transport": "unix:/run/testbed/host"})
    assert fresh_guest.run("/bin/echo", "hi").stdout == b"hi\n"
