"""Services under a real monitor: they have their limits, and outlive the daemon that started them."""

from __future__ import annotations

import errno
import os
import signal
import socket
from pathlib import Path

import pytest

from support.live_monitor import LiveMonitor, StandIn
from uvmd.monitor.link import MonitorError

pytestmark = pytest.mark.system

#: Answers each connection with a line of what it was asked for, as an instance would.
SERVER = """
import os, _socket
listener = _socket.socket(fileno=3)
while True:
    fd, _ = listener._accept()
    os.write(fd, b"%d\\n" % os.getpid())
    os.close(fd)
"""
PYTHON = ["/usr/bin/python3", "-I", "-S", "-c"]
LIMITS = {"data": 64 << 20, "core": 0, "fsize": 0, "nofile": 16}


def start(daemon: StandIn, path: Path, limits: dict[str, int] | None = None) -> tuple[int, int]:
    slot = daemon.link.new_slot()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        pid = daemon.link.service(
            slot,
            [*PYTHON, SERVER],
            env={"A": "1", "NOTIFY_SOCKET": "x"},
            limits=LIMITS if limits is None else limits,
            fds=[listener.fileno()],
            label="thing.one",
        )
    return slot, pid


def asked(path: Path) -> int:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        return int(connection.makefile().readline())


def test_a_service_survives_the_daemon_and_is_found_by_label(monitor: LiveMonitor, tmp_path: Path) -> None:
    daemon = monitor.start()
    path = tmp_path / "service"
    slot, pid = start(daemon, path)
    assert asked(path) == pid
    daemon.exit(1)
    following = monitor.next_daemon()
    state = following.greet()
    assert [(one.slot, one.pid, one.status, one.label) for one in state.services] == [
        (slot, pid, None, "thing.one")
    ]
    assert state.slots == ()
    assert asked(path) == pid
    following.link.kill(slot, signal.SIGKILL)
    following.events.wait_for("exited", slot, pid, -9)
    following.link.release(slot)
    with pytest.raises(ConnectionRefusedError):
        asked(path)
    path.unlink()
    assert asked_again(following, path) != pid


def asked_again(daemon: StandIn, path: Path) -> int:
    _, pid = start(daemon, path)
    assert asked(path) == pid
    return pid


def test_a_service_has_its_limits_no_streams_and_a_clean_environment(
    monitor: LiveMonitor, tmp_path: Path
) -> None:
    daemon = monitor.start()
    _, pid = start(daemon, tmp_path / "service")
    asked(tmp_path / "service")  # it is there
    proc = Path(f"/proc/{pid}")
    lines = {line[:26].strip(): line[26:].split()[:2] for line in (proc / "limits").read_text().splitlines()}
    for name, most in (
        ("Max data size", LIMITS["data"]),
        ("Max core file size", 0),
        ("Max file size", 0),
        ("Max open files", 16),
    ):
        assert lines[name] == [str(most)] * 2, name
    assert [os.readlink(proc / "fd" / fd) for fd in "012"] == ["/dev/null"] * 3
    assert (proc / "environ").read_bytes() == b"A=1\0"
    assert os.getpgid(pid) == pid


def test_a_service_that_cannot_start_leaves_no_slot(monitor: LiveMonitor, tmp_path: Path) -> None:
    daemon = monitor.start()
    for argv, limits, code in (
        (["/nonexistent"], {}, errno.ENOENT),
        ([*PYTHON, ""], {"cpu": 1}, errno.EINVAL),
        ([*PYTHON, ""], {"data": -1}, errno.EINVAL),
    ):
        slot = daemon.link.new_slot()
        with pytest.raises(MonitorError) as caught:
            daemon.link.service(slot, argv, env={}, limits=limits, label="x")
        assert caught.value.errno == code
        with pytest.raises(ProcessLookupError):
            daemon.link.kill(slot, signal.SIGKILL)


def test_a_service_ends_with_its_monitor(monitor: LiveMonitor, tmp_path: Path) -> None:
    daemon = monitor.start()
    _, pid = start(daemon, tmp_path / "service")
    asked(tmp_path / "service")
    daemon.link.finish(0)
    assert monitor.wait() == 0
    assert not Path(f"/proc/{pid}").exists()
