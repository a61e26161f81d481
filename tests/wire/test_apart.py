"""Monitor and daemon as units of their own: who ends, who stays, who is let in."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import specs
from support.apart import Apart, running_apart
from support.containers import created, new_id, shell
from support.daemon import is_running, wait_until
from support.host import ZERO_GUID
from support.leaks import cgroups, files

CREATE = 0x10100101


@pytest.fixture
def apart() -> Iterator[Apart]:
    with running_apart() as made:
        yield made


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_container_and_its_streams_outlive_the_daemon_on_one_connection(
    apart: Apart, number: signal.Signals
) -> None:
    bridge = apart.connect()
    with created(bridge, *shell("echo before; read line; echo $line; exit 7")) as container:
        init = container.init(stdin=True, stdout=True)
        init.stdout.read_until(b"before\n")
        waiting = bridge.send_wait(container.id, init.pid)
        status = apart.end_daemon(number)
        assert status == (0 if number == signal.SIGTERM else -number)
        assert is_running(init.pid)
        apart.start_daemon()
        init.stdin.write(b"after\n")
        assert init.stdout.read_all() == b"before\nafter\n"
        assert bridge.answer(waiting)["ExitCode"] == 7
    bridge.close()


def test_a_daemon_that_is_asked_to_go_answers_what_it_serves_and_leaves_the_rest(apart: Apart) -> None:
    bridge = apart.connect()
    spec = specs.container("/bin/sleep", "600")
    ids = [new_id() for _ in range(6)]
    sent = []
    for container_id in ids:
        config = bridge.host.container_config(container_id, spec)
        body = {"ContainerId": container_id, "ActivityId": ZERO_GUID, "ContainerConfig": config}
        sent.append(bridge.send(CREATE, body))
    assert apart.end_daemon() == 0
    apart.start_daemon()
    for message in sent:
        assert bridge.answer(message)["Result"] == 0
    assert apart.stop() == 0
    assert cgroups(apart.pods) == set()
    bridge.close()


def test_the_end_of_the_monitor_takes_everything_down(apart: Apart) -> None:
    bridge = apart.connect()
    bridge.create(container := new_id(), specs.container("/bin/sleep", "600"))
    pid, daemon = bridge.execute(container).pid, apart.daemon_pid
    assert apart.stop() == 0
    wait_until(lambda: not is_running(daemon), what="the daemon ends too")
    assert not is_running(pid)
    assert cgroups(apart.pods) == set()
    assert files(apart.bundles) <= {"c"}
    bridge.close()


def test_a_monitor_whose_daemon_was_stopped_takes_everything_down_as_well(apart: Apart) -> None:
    bridge = apart.connect()
    bridge.create(container := new_id(), specs.container("/bin/sleep", "600"))
    pid = bridge.execute(container).pid
    assert apart.end_daemon() == 0
    assert is_running(pid)
    assert apart.stop() == 0
    assert not is_running(pid)
    assert cgroups(apart.pods) == set()
    assert files(apart.bundles) <= {"c"}
    assert apart.find_daemon() is None
    bridge.close()


def test_a_monitor_that_never_had_a_daemon_ends_cleanly(tmp_path: Path) -> None:
    made = Apart()
    try:
        super(Apart, made).start()
        wait_until(made.link.exists)
        assert made.stop() == 0
    finally:
        made.close()


def test_a_second_daemon_is_turned_away_and_the_first_serves_on(apart: Apart) -> None:
    bridge = apart.connect()
    run_dir = str(apart.folder / "another")
    other = apart.start_daemon(flags={"paths-run-dir": run_dir})
    assert other.wait(15) == os.EX_UNAVAILABLE
    assert "there is a daemon already" in apart.log_text()
    bridge.create(container := new_id(), specs.container("/bin/true"))
    bridge.delete(container)
    bridge.close()


def test_a_daemon_with_mounts_of_its_own_is_turned_away(apart: Apart) -> None:
    apart.connect().close()
    assert apart.end_daemon() == 0
    other = apart.start_daemon(around=("unshare", "--mount"))
    assert other.wait(15) == os.EX_UNAVAILABLE
    assert "a mount namespace of its own" in apart.log_text()
    apart.start_daemon()
    apart.connect().close()


def test_a_second_monitor_at_the_socket_refuses_to_start(apart: Apart) -> None:
    other = subprocess.run(apart.argv(), capture_output=True, text=True, timeout=15)
    assert other.returncode == os.EX_UNAVAILABLE
    assert "there is a monitor already" in other.stderr
    apart.connect().close()


def test_settings_that_are_refused_cost_no_container(apart: Apart) -> None:
    bridge = apart.connect()
    with created(bridge, "/bin/sleep", "600") as container:
        init = container.init()
        assert apart.end_daemon() == 0
        for flags in ({"log-level": "loud"}, {"plugins-require": "nobody"}):
            refused = apart.start_daemon(flags=flags)
            assert refused.wait(15) == os.EX_CONFIG
        assert is_running(init.pid)
        apart.start_daemon()
        assert container.exec("/bin/true").wait() == 0
    bridge.close()


def test_a_daemon_without_its_monitor_ends() -> None:
    apart = Apart()
    try:
        apart.start()
        apart.connect().close()
        (daemon,) = apart._daemons
        os.kill(apart.monitor_pid, signal.SIGKILL)
        assert daemon.wait(15) == os.EX_UNAVAILABLE
        assert apart.start_daemon().wait(15) == os.EX_UNAVAILABLE
        assert "no monitor at" in apart.log_text()
    finally:
        apart.close()


def test_both_tell_the_manager_that_they_are_ready_and_that_they_live(tmp_path: Path) -> None:
    def hears(manager: socket.socket, *words: str) -> None:
        wanted, until = set(words), time.monotonic() + 15
        while wanted and time.monotonic() < until:
            wanted.discard(manager.recv(4096).decode())
        assert not wanted

    with contextlib.ExitStack() as stack:
        managers = []
        for name in ("monitor", "daemon"):
            manager = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            manager.bind(str(tmp_path / name))
            manager.settimeout(15)
            managers.append(manager)
        variables = {"NOTIFY_SOCKET": str(tmp_path / "monitor"), "WATCHDOG_USEC": "300000"}
        apart = stack.enter_context(running_apart(environment=variables))
        hears(managers[0], "READY=1", "WATCHDOG=1")
        apart.end_daemon()
        apart.start_daemon(environment={"NOTIFY_SOCKET": str(tmp_path / "daemon")})
        hears(managers[1], "READY=1", "WATCHDOG=1")
        apart.end_daemon()
        hears(managers[1], "STOPPING=1")
