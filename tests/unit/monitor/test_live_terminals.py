"""Terminals and external processes of a real monitor."""

from __future__ import annotations

import errno
import os
import random
import socket

import pytest

from support.live_container import PATH, Container
from support.live_monitor import LiveMonitor, in_thread, read_all, read_exactly
from uvmd.monitor.link import MonitorError

pytestmark = pytest.mark.system


def test_a_terminal_relays_both_ways_and_can_be_resized(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    script = "stty -echo; echo ready; read x; stty size; echo got $x"
    container = Container(monitor, daemon, "sh", "-c", script, ports=(1, 2, None), console=True)
    daemon.link.resize(container.slot, 33, 77)
    assert read_exactly(container.streams[2], 7) == b"ready\r\n"
    container.streams[1].sendall(b"hello\n")
    assert read_all(container.streams[2]).splitlines() == [b"33 77", b"got hello"]
    container.wait_exited()
    container.wait_drained()
    daemon.link.resize(container.slot, 1, 1)
    assert not (monitor.folder / f"slot{container.slot}" / "console").exists()


def test_end_of_file_on_stdin_does_not_hang_up_a_terminal(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    container = Container(monitor, daemon, "sh", "-c", "sleep 0.3; echo on", ports=(1, 2, None), console=True)
    container.streams[1].shutdown(socket.SHUT_WR)
    assert read_all(container.streams[2]) == b"on\r\n"
    assert container.wait_exited() == 0
    container.wait_drained()


def test_a_terminal_moves_more_than_its_buffers_hold(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    script = "stty raw -echo; echo ready; head -c 300000"
    container = Container(monitor, daemon, "sh", "-c", script, ports=(1, 2, None), console=True)
    data = random.Random(2).randbytes(300_000)
    assert read_exactly(container.streams[2], 6).startswith(b"ready")
    with in_thread(read_all, container.streams[2]) as out:
        container.streams[1].sendall(data)
    assert out[0].removeprefix(b"\n") == data
    container.wait_drained()


def test_a_terminals_stderr_connection_is_opened_and_closed_at_the_end(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    container = Container(monitor, daemon, "echo", "x", console=True)
    assert read_all(container.streams[2]) == b"x\r\n"
    assert read_all(container.streams[3]) == b""
    container.wait_drained()


def test_a_runtime_that_sends_no_terminal_has_failed(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    slot = daemon.link.new_slot()
    daemon.link.open_slot(slot, terminal=True, console_socket=str(monitor.folder / "console"))
    with pytest.raises(MonitorError, match="console socket"):
        daemon.link.run(["true"], env=PATH, deadline_s=5, slot=slot)
    daemon.link.release(slot)
    daemon.link.run(["true"], env=PATH, deadline_s=5)
    assert not (monitor.folder / "console").exists()


def test_only_terminals_can_be_resized(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    slot = daemon.link.new_slot()
    daemon.link.open_slot(slot)
    with pytest.raises(MonitorError) as caught:
        daemon.link.resize(slot, 1, 1)
    assert caught.value.errno == errno.ENOTTY


def test_an_external_process_gets_the_sockets_themselves(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    listeners = [monitor.listen(port) for port in (1, 2)]
    slot = daemon.link.new_slot()
    script = "ls -l /proc/self/fd; cat; pwd; env; umask; exit 9"
    pid = daemon.link.spawn(
        slot, ["sh", "-c", script], env={"A": "b"}, cwd="/tmp", ports=(1, 2, None), label="external"
    )
    stdin, stdout = (monitor.accept(listener) for listener in listeners)
    stdin.sendall(b"data\n")
    stdin.shutdown(socket.SHUT_WR)
    lines = read_all(stdout).decode().splitlines()
    assert daemon.events.wait_for("exited") == ("exited", slot, pid, 9)
    daemon.events.wait_for("drained", slot)
    assert [line.rpartition("-> ")[2].partition(":")[0] for line in lines if " 0 ->" in line] == ["socket"]
    assert [line.rpartition("-> ")[2] for line in lines if " 2 ->" in line] == ["/dev/null"]
    assert "data" in lines
    assert "/tmp" in lines
    assert {"A=b", "PWD=/tmp", "0022"} < set(lines)


def test_an_external_process_with_a_terminal_owns_it(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    listeners = [monitor.listen(port) for port in (1, 2)]
    slot = daemon.link.new_slot()
    script = "stty -echo; echo ready; read x; tty >/dev/null && echo tty; stty size </dev/tty; echo $x"
    argv = ["sh", "-c", script]
    daemon.link.spawn(slot, argv, env=PATH, cwd="/", terminal=True, ports=(1, 2, None))
    stdin, stdout = (monitor.accept(listener) for listener in listeners)
    daemon.link.resize(slot, 5, 6)
    assert read_exactly(stdout, 7) == b"ready\r\n"
    stdin.sendall(b"abc\n")
    assert read_all(stdout).split() == [b"tty", b"5", b"6", b"abc"]
    daemon.events.wait_for("exited", slot)
    daemon.events.wait_for("drained", slot)


def test_an_external_process_that_cannot_start_leaves_nothing(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    listener = monitor.listen(2)
    before = len(os.listdir(f"/proc/{monitor.process.pid}/fd"))
    for cgroups in ((), ("/nonexistent",)):
        slot = daemon.link.new_slot()
        with pytest.raises(MonitorError) as caught:
            daemon.link.spawn(slot, ["/nonexistent"], env={}, cwd="/", ports=(None, 2, None), cgroups=cgroups)
        assert caught.value.errno == errno.ENOENT
        assert read_all(monitor.accept(listener)) == b""
        with pytest.raises(ProcessLookupError):
            daemon.link.kill(slot, 9)
    assert len(os.listdir(f"/proc/{monitor.process.pid}/fd")) == before


def test_dial_hands_over_a_blocking_connection(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    listener = monitor.listen(564)
    with socket.socket(fileno=daemon.link.dial(564, 5)) as ours:
        theirs = monitor.accept(listener)
        assert not os.get_inheritable(ours.fileno())
        assert os.get_blocking(ours.fileno())
        ours.sendall(b"9P")
        assert read_exactly(theirs, 2) == b"9P"
    with pytest.raises(MonitorError):
        daemon.link.dial(565, 5)
