"""Streams of a real monitor: pipes, sockets, terminals, and hosts that come and go."""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import struct
import time
from pathlib import Path

import pytest

from support.live_container import PATH, RUNTIME, Container
from support.live_monitor import LiveMonitor, in_thread, read_all, read_exactly
from uvmd.monitor.link import MonitorError

pytestmark = pytest.mark.system

HISTORY = 131_072


def random_file(folder: Path, size: int) -> bytes:
    data = random.Random(size).randbytes(size)
    (folder / "data").write_bytes(data)
    return data


@pytest.mark.parametrize("redial", [False, True])
def test_output_arrives_byte_for_byte(monitor: LiveMonitor, redial: bool) -> None:
    daemon = monitor.start()
    data = random_file(monitor.folder, 5_000_001)
    container = Container(
        monitor, daemon, "cat", str(monitor.folder / "data"), ports=(None, 2, None), redial=redial
    )
    assert read_all(container.streams[2]) == data
    container.streams[2].close()
    assert container.wait_exited() == 0
    container.wait_drained()


def test_input_and_both_outputs_are_three_streams(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    data = random.Random(1).randbytes(3_000_000)
    container = Container(monitor, daemon, "tee", "/dev/stderr")
    with (
        in_thread(read_all, container.streams[3]) as errors,
        in_thread(read_all, container.streams[2]) as out,
    ):
        container.streams[1].sendall(data)
        container.streams[1].shutdown(socket.SHUT_WR)
    assert out[0] == data
    assert errors[0] == data
    assert container.wait_exited() == 0
    container.streams[2].close()
    container.streams[3].close()
    container.wait_drained()


def test_the_exit_is_drained_only_when_the_host_has_closed_its_side(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    container = Container(monitor, daemon, "echo", "bye", ports=(None, 2, None))
    assert read_all(container.streams[2]) == b"bye\n"
    assert container.wait_exited() == 0
    daemon.link.run(["sleep", "0.1"], env=PATH, deadline_s=5)
    assert not container.drained
    container.streams[2].close()
    container.wait_drained()


def test_a_host_that_talks_back_on_an_output_is_ignored(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    container = Container(monitor, daemon, "echo", "bye", ports=(None, 2, None))
    container.streams[2].sendall(b"what?")
    assert read_all(container.streams[2]) == b"bye\n"
    container.streams[2].shutdown(socket.SHUT_WR)
    container.wait_drained()


def test_at_exit_stdin_is_let_go_although_the_host_keeps_it_open(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    container = Container(monitor, daemon, "sleep", "100", ports=(1, None, None))
    container.streams[1].sendall(b"never read")
    daemon.link.kill(container.slot, signal.SIGKILL)
    assert container.wait_exited() == -signal.SIGKILL
    container.wait_drained()


def test_unused_streams_are_end_of_file_and_a_sink(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    script = "cat; head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2; echo $? >&2; exit 4"
    container = Container(monitor, daemon, "sh", "-c", script, ports=(None, None, None))
    assert container.wait_exited() == 4
    container.wait_drained()


def test_discarded_streams_dial_nothing(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    slot = daemon.link.new_slot()
    daemon.link.open_slot(slot)
    daemon.link.connect(slot, (1, 2, 3), discard=True)
    completed = daemon.link.run(["sh", "-c", "cat; echo x"], env=PATH, deadline_s=5, slot=slot)
    assert completed.status == 0


def test_a_failed_dial_closes_the_earlier_ones(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    slot = daemon.link.new_slot()
    daemon.link.open_slot(slot)
    first = monitor.listen(1)
    with pytest.raises(MonitorError) as caught:
        daemon.link.connect(slot, (1, 2, None))
    assert caught.value.errno in (errno.ENOENT, errno.ECONNREFUSED)
    assert read_all(monitor.accept(first)) == b""
    # The slot is as it was: the ports may be tried again.
    monitor.listen(2)
    daemon.link.connect(slot, (1, 2, None))


def test_streams_are_connected_once(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    slot = daemon.link.new_slot()
    daemon.link.open_slot(slot)
    daemon.link.connect(slot, (None, None, None))
    with pytest.raises(MonitorError):
        daemon.link.connect(slot, (None, None, None))


def test_a_host_that_vanishes_gets_the_last_of_what_it_had_again(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    data = random_file(monitor.folder, 3_000_000)
    container = Container(
        monitor, daemon, "cat", str(monitor.folder / "data"), ports=(None, 2, None), redial=True
    )
    seen = read_exactly(container.streams[2], 1_000_000)
    container.streams[2].close()
    second = monitor.accept(container.listeners[2])
    rest = read_all(second)
    # At least once: the new connection begins up to 128 KiB before what was last sent.
    assert data.endswith(rest)
    start = len(data) - len(rest)
    assert len(seen) - HISTORY <= start
    second.close()
    assert container.wait_exited() == 0
    container.wait_drained()


def test_the_replay_is_exactly_the_last_128_kib(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    data = random_file(monitor.folder, 200_000)
    script = f"cat {monitor.folder}/data; read line; echo more; read line; exit 3"
    container = Container(monitor, daemon, "sh", "-c", script, ports=(1, 2, None), redial=True)
    assert read_exactly(container.streams[2], 200_000) == data
    container.streams[2].close()
    container.streams[1].sendall(b"go\n")
    second = monitor.accept(container.listeners[2])
    assert read_exactly(second, HISTORY + 5) == data[-HISTORY:] + b"more\n"
    container.streams[1].sendall(b"end\n")
    assert read_all(second) == b""
    second.close()
    assert container.wait_exited() == 3
    container.wait_drained()


def test_without_redial_a_failed_connection_only_loses_its_output(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    script = "read line; head -c 1000000 /dev/zero; echo fine >&2; exit 6"
    container = Container(monitor, daemon, "sh", "-c", script)
    container.streams[2].close()
    container.streams[1].sendall(b"go\n")
    assert read_all(container.streams[3]) == b"fine\n"
    container.streams[3].close()
    assert container.wait_exited() == 6
    container.wait_drained()


def test_redialling_ends_when_it_is_stopped(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    script = "while echo a line of text; do sleep 0.01; done"
    container = Container(monitor, daemon, "sh", "-c", script, ports=(None, 2, None), redial=True)
    container.listeners[2].close()
    (Path(f"{monitor.host}_2")).unlink()
    container.streams[2].close()
    daemon.link.run(["sleep", "0.3"], env=PATH, deadline_s=5)
    daemon.link.kill(container.slot, signal.SIGKILL)
    container.wait_exited()
    assert not container.drained
    daemon.link.stop_redial(container.slot)
    container.wait_drained(timeout_s=2)


def test_redialling_ends_when_the_process_is_gone_and_the_port_refuses(tmp_path: Path) -> None:
    with LiveMonitor(tmp_path, setup="redial.REFUSED_S = 0.5") as monitor:
        daemon = monitor.start()
        container = Container(monitor, daemon, "yes", ports=(None, 2, None), redial=True)
        container.listeners[2].close()
        container.streams[2].close()
        daemon.link.run(["sleep", "0.6"], env=PATH, deadline_s=5)
        daemon.link.kill(container.slot, signal.SIGKILL)
        container.wait_exited()
        before = time.monotonic()
        container.wait_drained()
        assert time.monotonic() - before > 0.45


def test_a_tee_file_gets_what_the_host_gets(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    data = random_file(monitor.folder, 2_000_000)
    tee = os.open(monitor.folder / "tee", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    container = Container(
        monitor, daemon, "cat", str(monitor.folder / "data"), ports=(None, 2, None), redial=True, tee_fd=tee
    )
    os.close(tee)
    assert read_all(container.streams[2]) == data
    container.streams[2].close()
    container.wait_drained()
    assert (monitor.folder / "tee").read_bytes() == data


@pytest.mark.parametrize("discard", [False, True])
def test_a_tee_file_is_written_without_any_connection(monitor: LiveMonitor, discard: bool) -> None:
    daemon = monitor.start()
    data = random_file(monitor.folder, 500_000)
    tee = os.open(monitor.folder / "tee", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    container = Container(
        monitor,
        daemon,
        "cat",
        str(monitor.folder / "data"),
        ports=(None, None, None),
        discard=discard,
        tee_fd=tee,
    )
    os.close(tee)
    container.wait_drained()
    assert (monitor.folder / "tee").read_bytes() == data


def test_a_descendant_that_holds_the_output_is_waited_for_a_while(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    daemon.link.configure(drain_grace_s=0.5)
    container = Container(
        monitor, daemon, "sh", "-c", "(sleep 0.2; echo late; sleep 100) & exit 2", ports=(None, 2, None)
    )
    before = time.monotonic()
    assert read_all(container.streams[2]) == b"late\n"
    assert 0.6 < time.monotonic() - before < 5
    container.streams[2].close()
    assert container.wait_exited() == 2
    container.wait_drained()


def test_release_closes_everything_a_slot_had(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    monitor.listen(2)
    folder = f"/proc/{monitor.process.pid}/fd"
    before = len(os.listdir(folder))
    for number in range(3):
        tee = os.open(monitor.folder / "tee", os.O_WRONLY | os.O_CREAT)
        container = Container(monitor, daemon, "sleep", "100", redial=True, tee_fd=tee, console=number == 2)
        os.close(tee)
        daemon.link.kill(container.slot, signal.SIGKILL)
        daemon.link.release(container.slot)
    daemon.link.run(["true"], env=PATH, deadline_s=5)
    assert len(os.listdir(folder)) == before


def test_a_slot_that_never_ran_drains_at_once(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    slot = daemon.link.new_slot()
    daemon.link.open_slot(slot)
    folder = monitor.folder
    argv = ["/usr/bin/python3", "-I", "-S", "-c", RUNTIME, str(folder / "pid"), "sleep", "100"]
    daemon.link.run(argv, env=PATH, deadline_s=5, slot=slot, pid_file=str(folder / "pid"))
    daemon.link.kill(slot, signal.SIGKILL)
    daemon.events.wait_for("exited", slot)
    daemon.events.wait_for("drained", slot)
    with pytest.raises(MonitorError) as caught:
        daemon.link.connect(slot, (None, None, None))
    assert caught.value.errno == errno.ESRCH


def test_a_connection_reset_by_the_host_counts_as_vanished(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    container = Container(monitor, daemon, "yes", ports=(None, 2, None), redial=True)
    # Closing with unread data makes the kernel reset a unix connection.
    container.streams[2].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    container.streams[2].close()
    again = monitor.accept(container.listeners[2])
    assert read_exactly(again, 4) in (b"y\ny\n", b"\ny\ny")
    daemon.link.kill(container.slot, signal.SIGKILL)
    container.wait_exited()
    daemon.link.stop_redial(container.slot)
    again.close()
    container.wait_drained()
