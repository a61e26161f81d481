"""The daemon dies, refuses, talks nonsense; the monitor is asked to stop."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from support.live_monitor import MONITOR, LiveMonitor, StandIn, read_exactly
from uvmd.monitor import wire

pytestmark = pytest.mark.system

PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def external(daemon: StandIn, *argv: str, port: int | None = None, label: str = "") -> tuple[int, int]:
    """Start a process in a slot; return both numbers."""
    slot = daemon.link.new_slot()
    pid = daemon.link.spawn(slot, argv, env=PATH, cwd="/", ports=(None, port, None), label=label)
    return slot, pid


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def run_monitor(*argv: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["/usr/bin/python3", "-I", "-S", str(MONITOR), *argv],
        check=False,
        timeout=15,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (("--", "/bin/sh", "-c", "exit 7"), 7),
        (("/bin/sh", "-c", "exit 0"), 0),
        (("--", "/bin/sh", "-c", "kill -9 $$"), 137),
        (("--", "/nonexistent"), 127),
        ((), 2),
        (("--",), 2),
    ],
)
def test_a_daemon_that_refuses_to_start_ends_the_monitor_with_its_status(
    argv: tuple[str, ...], status: int
) -> None:
    assert run_monitor(*argv).returncode == status


def test_the_daemon_gets_the_link_as_three_and_no_bridge_as_stdout() -> None:
    script = "echo $UVMD_MONITOR_FD; cat; ls -l /proc/self/fd; umask; exit 3"
    done = run_monitor("--", "/bin/sh", "-c", script)
    assert done.stdout == b""
    lines = done.stderr.decode().splitlines()
    assert "3" in lines
    assert [line for line in lines if "3 -> socket" in line]
    assert [line for line in lines if "0 -> /dev/null" in line]


def test_every_log_line_is_one_json_object() -> None:
    done = run_monitor("--", "/bin/sh", "-c", "exit 1")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert lines
    for line in lines:
        assert {"time", "level", "msg"} <= line.keys()
        assert len(line["time"]) == len("2026-01-02T03:04:05.123456789Z")


def test_every_line_around_a_refused_start_is_text_where_text_was_asked_for() -> None:
    done = run_monitor("--", "/bin/sh", "-c", "exit 1", "--log-format=text")
    lines = done.stderr.decode().splitlines()
    assert [line.split(maxsplit=2)[2] for line in lines[1:]] == [
        "the link has ended reason=end of file",
        "the daemon has refused to start status=1",
        "the monitor ends status=1",
    ]
    assert "INFO    daemon started" in lines[0]


def test_a_killed_daemon_is_replaced_and_nothing_it_ran_notices(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    listener = monitor.listen(2)
    slot = daemon.link.new_slot()
    daemon.link.open_slot(slot, label="ctr:1")
    daemon.link.connect(slot, (None, 2, None))
    host = monitor.accept(listener)
    running, pid = external(daemon, "sleep", "100", label="ext:1")
    gone, gone_pid = external(daemon, "sh", "-c", "exit 5", label="ext:2")
    daemon.events.wait_for("drained", gone)
    os.kill(daemon.pid, signal.SIGKILL)
    again = monitor.next_daemon()
    state = again.greet()
    assert state.daemon_starts == 2
    assert {one.slot: (one.pid, one.status, one.drained, one.label) for one in state.slots} == {
        slot: (0, None, False, "ctr:1"),
        running: (pid, None, False, "ext:1"),
        gone: (gone_pid, 5, True, "ext:2"),
    }
    assert again.link.new_slot() > max(slot, running, gone)
    # The relay goes on: the slot's pipes are where the old daemon left them.
    again.link.run(["sh", "-c", "echo alive"], env=PATH, deadline_s=5, slot=slot)
    assert read_exactly(host, 6) == b"alive\n"
    again.link.kill(running, signal.SIGTERM)
    assert again.events.wait_for("exited", running)[3] == -signal.SIGTERM
    again.link.release(gone)
    again.link.release(running)
    os.kill(again.pid, signal.SIGKILL)
    third = monitor.next_daemon()
    assert [one.slot for one in third.greet().slots] == [slot]


def test_an_exit_while_no_daemon_is_there_is_in_the_state(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    slot, pid = external(daemon, "sleep", "100")
    os.kill(daemon.pid, signal.SIGKILL)
    again = monitor.next_daemon()
    os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.01)
    (state,) = again.greet().slots
    assert (state.slot, state.status, state.drained) == (slot, -signal.SIGKILL, True)
    assert again.events.all() == []


def test_a_daemon_that_dies_again_and_again_is_started_less_often(monitor: LiveMonitor) -> None:
    monitor.start().exit(1)
    times = []
    for _ in range(4):
        monitor.next_daemon().exit(1)
        times.append(time.monotonic())
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses[0] > 0.15
    assert pauses[1] > 0.35
    assert pauses[2] > 0.7


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_the_daemon_to_stop_and_finish_ends_everything(
    monitor: LiveMonitor, signal_number: signal.Signals
) -> None:
    daemon = monitor.start()
    _, pid = external(daemon, "sh", "-c", "trap '' TERM; sleep 100 & wait")
    monitor.process.send_signal(signal_number)
    assert daemon.events.wait_for("stop")[1] == signal_number.name
    assert alive(pid)
    daemon.link.finish(0)
    daemon.exit(0)
    assert monitor.wait() == 0
    assert not alive(pid)


def test_finish_gives_its_status_even_if_the_daemon_lingers(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    daemon.link.finish(42)
    assert monitor.wait() == 42
    assert not alive(daemon.pid)


def test_a_second_signal_kills_what_is_left(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    _, pid = external(daemon, "sleep", "100")
    monitor.process.terminate()
    daemon.events.wait_for("stop")
    monitor.process.terminate()
    assert monitor.wait() == 1
    assert not alive(pid)
    assert not alive(daemon.pid)


def test_a_daemon_that_dies_while_stopping_is_not_replaced(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    _, pid = external(daemon, "sleep", "100")
    monitor.process.terminate()
    daemon.events.wait_for("stop")
    os.kill(daemon.pid, signal.SIGKILL)
    assert monitor.wait() == 1
    assert not alive(pid)


def test_a_daemon_that_does_not_finish_in_time_is_killed_with_the_rest(tmp_path: Path) -> None:
    with LiveMonitor(tmp_path, setup="monitor.STOP_S = 0.3") as monitor:
        daemon = monitor.start()
        _, pid = external(daemon, "sleep", "100")
        monitor.process.terminate()
        daemon.events.wait_for("stop")
        assert monitor.wait() == 1
        assert not alive(pid)
        assert not alive(daemon.pid)


def test_blocked_and_ignored_signals_of_whoever_started_us_do_not_matter(tmp_path: Path) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
    old = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        started = LiveMonitor(tmp_path)
    finally:
        signal.signal(signal.SIGCHLD, old)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with started as monitor:
        daemon = monitor.start()
        assert daemon.link.run(["sh", "-c", "exit 3"], env=PATH, deadline_s=5).status == 3
        monitor.process.terminate()
        daemon.events.wait_for("stop")


def test_stopping_while_no_daemon_is_there_ends_at_once(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    _, pid = external(daemon, "sleep", "100")
    for _ in range(3):
        daemon.exit(1)
        daemon = monitor.next_daemon()
    daemon.exit(1)
    time.sleep(0.1)  # the next start is more than half a second away
    monitor.process.terminate()
    assert monitor.wait() == 1
    assert not alive(pid)


def test_a_stop_before_the_greeting_is_told_with_the_greeting(monitor: LiveMonitor) -> None:
    daemon = monitor.next_daemon()
    monitor.process.terminate()
    time.sleep(0.05)
    daemon.greet()
    daemon.events.wait_for("stop", "SIGTERM")
    daemon.link.finish(0)
    assert monitor.wait() == 0


@pytest.mark.parametrize(
    "packet",
    [
        b"x",
        b"\xff" * 300,
        wire.encode(wire.EXITED, 0, 1, 2, 3),
        b"\x63\0\0\0\0\0\0\0",
        wire.encode(wire.KILL, 1, 5),
        wire.encode(wire.LARGE, 0, 100),
    ],
)
def test_nonsense_on_the_link_costs_the_daemon_its_life_and_nobody_elses(
    monitor: LiveMonitor, packet: bytes
) -> None:
    daemon = monitor.start()
    _, pid = external(daemon, "sleep", "100")
    daemon.sock.send(packet)
    again = monitor.next_daemon()
    assert not alive(daemon.pid)
    (state,) = again.greet().slots
    assert (state.pid, state.status) == (pid, None)
    os.kill(pid, signal.SIGKILL)


def test_nothing_is_done_for_a_daemon_that_did_not_greet(monitor: LiveMonitor) -> None:
    daemon = monitor.next_daemon()
    daemon.sock.send(wire.encode(wire.KILL, 1, 1, 9))
    assert monitor.wait() == 137


def test_a_large_packet_must_be_sealed(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    memfd = os.memfd_create("unsealed")
    packet = wire.encode(wire.KILL, 1, 1, 9)
    os.write(memfd, packet)
    socket.send_fds(daemon.sock, [wire.encode(wire.LARGE, 0, len(packet))], [memfd])
    os.close(memfd)
    monitor.next_daemon()


def test_descriptors_nobody_asked_for_are_closed(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    folder = f"/proc/{monitor.process.pid}/fd"
    before = len(os.listdir(folder))
    with open("/dev/null") as null:
        for _ in range(50):
            socket.send_fds(daemon.sock, [wire.encode(wire.STOP_REDIAL, 0, 77)], [null.fileno()] * 20)
    daemon.link.run(["true"], env=PATH, deadline_s=5)
    assert len(os.listdir(folder)) == before


def test_no_descriptor_of_whoever_started_us_goes_further(tmp_path: Path) -> None:
    with open(tmp_path / "secret", "w") as secret:
        fd = os.dup2(secret.fileno(), 150, inheritable=True)
        with LiveMonitor(tmp_path, pass_fds=(fd,)) as monitor:
            daemon = monitor.start()
            assert not Path(f"/proc/{monitor.process.pid}/fd/150").exists()
            assert not Path(f"/proc/{daemon.pid}/fd/150").exists()
        os.close(fd)


def test_the_monitor_is_one_small_thread(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    assert len(os.listdir(f"/proc/{monitor.process.pid}/task")) == 1
    for line in Path(f"/proc/{monitor.process.pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss_Anon:"):
            assert int(line.split()[1]) < 6 * 1024
    daemon.link.finish(0)


def test_a_thousand_slots_fit_beside_each_other(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    numbers = [daemon.link.new_slot() for _ in range(1000)]
    for number in numbers:
        daemon.link.open_slot(number)
    assert daemon.link.run(["sh", "-c", "ulimit -n"], env=PATH, deadline_s=5).status == 0
    for number in numbers:
        daemon.link.release(number)
    daemon.link.run(["true"], env=PATH, deadline_s=5)
    assert len(os.listdir(f"/proc/{monitor.process.pid}/fd")) < 30


def test_a_daemon_of_another_release_is_told_so_and_nothing_is_done_for_it(monitor: LiveMonitor) -> None:
    daemon = monitor.next_daemon()
    daemon.sock.settimeout(15)
    for request in (wire.encode(wire.HELLO, 7, wire.VERSION + 1), wire.encode(wire.HELLO, 8, wire.VERSION)):
        daemon.sock.send(request)
    op, tag, (code, text) = wire.decode(daemon.sock.recv(1000))
    assert (op, tag, code) == (wire.ERROR, 7, errno.EPROTONOSUPPORT)
    assert b"version" in text
    assert wire.decode(daemon.sock.recv(1000))[:2] == (wire.REPLY, 8), "it may ask again"
