"""The bridge connection of a real monitor."""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

import pytest

from support.live_monitor import LiveMonitor, StandIn, read_exactly

pytestmark = pytest.mark.system


def frame(body: bytes, number: int = 1) -> bytes:
    return struct.pack("<IIQ", 0x10100101, 16 + len(body), number) + body


def bridge_of(monitor: LiveMonitor, daemon: StandIn) -> socket.socket:
    with monitor.listen() as listener:
        daemon.link.open_bridge(f"unix:{monitor.host}")
        return monitor.accept(listener)


def test_frames_of_every_size_cross_both_ways_unchanged(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    host = bridge_of(monitor, daemon)
    daemon.events.wait_for("up", 1)
    for size in (0, 1, 300, 61_000, 61_440, 70_000, 3_000_000):
        sent = frame(random.Random(size).randbytes(size))
        host.sendall(sent)
        assert daemon.events.wait_for("frame", 1)[2] == sent
        daemon.link.send_frame(1, sent)
        assert read_exactly(host, len(sent)) == sent


def test_frames_split_and_joined_arrive_one_by_one(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    host = bridge_of(monitor, daemon)
    sent = [frame(bytes([number]) * (number * 37), number) for number in range(40)]
    stream = b"".join(sent)
    for at in range(0, len(stream), 1009):
        host.sendall(stream[at : at + 1009])
    for one in sent:
        assert daemon.events.wait_for("frame", 1)[2] == one


@pytest.mark.parametrize("size", [0, 15, 16 * 1024 * 1024 + 1, 0xFFFFFFFF])
def test_an_impossible_size_closes_the_connection_and_a_new_one_is_made(
    monitor: LiveMonitor, size: int
) -> None:
    daemon = monitor.start()
    with monitor.listen() as listener:
        daemon.link.open_bridge(f"unix:{monitor.host}")
        host = monitor.accept(listener)
        host.sendall(struct.pack("<IIQ", 0x10100101, size, 0))
        assert host.recv(1) == b""
        assert f"frame of {size} bytes" in daemon.events.wait_for("down", 1)[2]
        monitor.accept(listener)
        daemon.events.wait_for("up", 2)


def test_the_largest_inbound_frame_can_be_set(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    daemon.link.configure(max_inbound_bytes=100)
    host = bridge_of(monitor, daemon)
    host.sendall(frame(b"x" * 84))
    daemon.events.wait_for("frame", 1)
    host.sendall(frame(b"x" * 85))
    daemon.events.wait_for("down", 1)


def test_the_bridge_dials_until_somebody_listens(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    daemon.link.open_bridge(f"unix:{monitor.host}")
    daemon.link.run(["sleep", "0.25"], env={}, deadline_s=5)
    monitor.accept(monitor.listen())
    daemon.events.wait_for("up", 1)
    assert monitor.log.read_text().count("cannot connect") == 1


def test_frames_not_wholly_written_come_back_in_order_before_down(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    host = bridge_of(monitor, daemon)
    daemon.events.wait_for("up", 1)
    sent = [frame(bytes([number]) * 60_000, number) for number in range(30)]
    for one in sent:
        daemon.link.send_frame(1, one)
    daemon.link.run(["true"], env={}, deadline_s=5)
    assert read_exactly(host, 16) == sent[0][:16]
    host.close()
    daemon.events.wait_for("down", 1)
    events = daemon.events.all()
    unsent = [event[1] for event in events if event[0] == "unsent"]
    assert unsent, "thirty large frames cannot all fit into a socket buffer"
    assert unsent == sent[-len(unsent) :]


def test_a_frame_for_a_connection_that_is_gone_comes_back(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    with monitor.listen() as listener:
        daemon.link.open_bridge(f"unix:{monitor.host}")
        monitor.accept(listener).close()
        daemon.events.wait_for("down", 1)
        monitor.accept(listener)
        daemon.events.wait_for("up", 2)
        daemon.link.send_frame(1, frame(b"late"))
        daemon.events.wait_for("unsent", frame(b"late"))


def test_the_daemon_can_close_a_connection_but_not_its_successor(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    with monitor.listen() as listener:
        daemon.link.open_bridge(f"unix:{monitor.host}")
        first = monitor.accept(listener)
        daemon.events.wait_for("up", 1)
        daemon.link.close_bridge(1)
        assert first.recv(1) == b""
        second = monitor.accept(listener)
        daemon.events.wait_for("up", 2)
        daemon.link.close_bridge(1)
        second.sendall(frame(b"still here"))
        daemon.events.wait_for("frame", 2)


def test_a_host_that_does_not_read_is_not_read_either(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    host = bridge_of(monitor, daemon)
    daemon.events.wait_for("up", 1)
    answer = frame(b"a" * 60_000)
    for _ in range(100):
        daemon.link.send_frame(1, answer)
    daemon.link.run(["true"], env={}, deadline_s=5)
    host.setblocking(False)
    sent = 0
    with pytest.raises(BlockingIOError):
        while sent < 64 * 1024 * 1024:
            sent += host.send(frame(b"q" * 60_000)[sent % 60_016 :])
    assert sent < 2 * 1024 * 1024
    host.settimeout(15)
    for _ in range(100):
        assert read_exactly(host, len(answer)) == answer
    daemon.events.wait_for("frame", 1)


def test_what_waits_for_the_daemon_is_bounded(monitor: LiveMonitor) -> None:
    daemon = monitor.next_daemon()
    daemon.link.hello()  # and then it never polls
    with monitor.listen() as listener:
        daemon.link.open_bridge(f"unix:{monitor.host}")
        host = monitor.accept(listener)
    host.setblocking(False)
    big = frame(b"q" * 4_000_000)
    sent = 0
    stalled = 0
    while sent < 512 * 1024 * 1024 and stalled < 20:
        try:
            sent += host.send(memoryview(big)[sent % len(big) :])
            stalled = 0
        except BlockingIOError:
            stalled += 1
            time.sleep(0.02)
    assert 60 * 1024 * 1024 < sent < 90 * 1024 * 1024


def test_stdio_carries_the_bridge_and_its_end_of_file_stops(tmp_path: Path) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with LiveMonitor(tmp_path, **pipes) as monitor:
        daemon = monitor.start()
        daemon.link.open_bridge("stdio")
        daemon.events.wait_for("up", 1)
        stdin, stdout = monitor.process.stdin, monitor.process.stdout
        assert stdin is not None
        assert stdout is not None
        sent = frame(b"over stdin")
        stdin.write(sent)
        stdin.flush()
        assert daemon.events.wait_for("frame", 1)[2] == sent
        daemon.link.send_frame(1, sent)
        assert stdout.read(len(sent)) == sent
        stdin.close()
        daemon.events.wait_for("down", 1)
        assert daemon.events.wait_for("stop")[1] == "end of file"
        daemon.link.finish(0)
        daemon.exit(0)
        assert monitor.wait() == 0
        assert stdout.read() == b""
        stdout.close()


def test_the_end_of_file_stops_when_there_is_no_descriptor_left(tmp_path: Path) -> None:
    with LiveMonitor(tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as monitor:
        daemon = monitor.start()
        daemon.link.open_bridge("stdio")
        daemon.events.wait_for("up", 1)
        stdin, stdout = monitor.process.stdin, monitor.process.stdout
        assert stdin is not None
        assert stdout is not None
        pid = monitor.process.pid
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        stdin.close()
        daemon.events.wait_for("down", 1)
        assert daemon.events.wait_for("stop")[1] == "end of file"
        assert stdout.read() == b""
        stdout.close()
        daemon.link.finish(0)
        daemon.exit(0)
        assert monitor.wait() == 0


def test_stdio_may_be_a_regular_file(tmp_path: Path) -> None:
    frames = [frame(b"x" * 70_000, number) for number in range(3)]
    (tmp_path / "in").write_bytes(b"".join(frames))
    with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as sink:
        with LiveMonitor(tmp_path, stdin=source, stdout=sink) as monitor:
            daemon = monitor.start()
            daemon.link.open_bridge("stdio")
            for one in frames:
                assert daemon.events.wait_for("frame", 1)[2] == one
            daemon.events.wait_for("stop", "end of file")
            daemon.link.finish(0)
            daemon.exit(0)
            assert monitor.wait() == 0


def test_answers_still_under_way_reach_the_host_before_the_end(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    host = bridge_of(monitor, daemon)
    daemon.events.wait_for("up", 1)
    sent = [frame(b"y" * 60_000, number) for number in range(8)]
    for one in sent:
        daemon.link.send_frame(1, one)
    daemon.link.finish(0)
    daemon.exit(0)
    for one in sent:
        assert read_exactly(host, len(one)) == one
    assert monitor.wait() == 0


def test_the_connection_outlives_the_daemon_with_a_request_half_read(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    host = bridge_of(monitor, daemon)
    answered, open_, half = frame(b"a" * 10, 1), frame(b"b" * 100, 2), frame(b"c" * 90_000, 3)
    host.sendall(answered + open_ + half[:30_000])
    first = daemon.events.wait_for("frame", 1, answered)[3]
    second = daemon.events.wait_for("frame", 1, open_)[3]
    daemon.link.send_frame(1, frame(b"done"), first, state=0x104)
    assert read_exactly(host, 20) == frame(b"done")
    os.kill(daemon.pid, signal.SIGKILL)
    again = monitor.next_daemon()
    host.sendall(half[30_000:])
    state = again.greet()
    assert state.daemon_starts == 2
    assert first not in state.requests
    assert second in state.requests
    again.link.open_bridge(f"unix:{monitor.host}")
    again.events.wait_for("up", 1, 0x104)
    assert again.events.wait_for("again")[2:] == (open_, second, 1, 0x104)
    event = again.events.wait_for("again") if state.requests - {second} else again.events.wait_for("frame")
    assert event[2] == half
    again.link.send_frame(1, frame(b"second"), second)
    assert read_exactly(host, 22) == frame(b"second")


def test_an_answer_that_a_daemon_gave_is_written_whole_after_its_death(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    host = bridge_of(monitor, daemon)
    for number in range(40):
        host.sendall(frame(b"q", number))
    requests = [daemon.events.wait_for("frame", 1)[3] for _ in range(40)]
    answers = [frame(bytes([number]) * 60_000, number) for number in range(40)]
    for request, answer in zip(requests[:39], answers, strict=False):
        daemon.link.send_frame(1, answer, request)
    daemon.link.run(["true"], env={}, deadline_s=5)
    assert read_exactly(host, 100) == answers[0][:100], "the rest does not fit into the socket's buffer"
    os.kill(daemon.pid, signal.SIGKILL)
    again = monitor.next_daemon()
    assert again.greet().requests == {requests[39]}
    assert read_exactly(host, len(answers[0]) - 100) == answers[0][100:]
    for answer in answers[1:39]:
        assert read_exactly(host, len(answer)) == answer
    assert again.events.wait_for("again")[3] == requests[39]


def test_what_a_daemon_could_not_send_goes_to_the_next_one(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    with monitor.listen() as listener:
        daemon.link.open_bridge(f"unix:{monitor.host}")
        host = monitor.accept(listener)
        host.sendall(frame(b"q", 1) + frame(b"r", 2))
        first, second = (daemon.events.wait_for("frame", 1)[3] for _ in range(2))
        slot = daemon.link.new_slot()
        daemon.link.open_slot(slot)
        daemon.link.send_frame(0, frame(b"told"), slot=slot)
        daemon.link.send_frame(0, frame(b"answer"), first)
        os.kill(daemon.pid, signal.SIGKILL)
        again = monitor.next_daemon()
        state = again.greet()
        assert state.requests == {second}
        assert [one.told for one in state.slots] == [True]
        assert again.events.wait_for("unsent", frame(b"answer"))[2:] == (first, 0)
        assert again.events.wait_for("unsent", frame(b"told"))[2:] == (0, slot)
        again.link.send_frame(1, frame(b"answer"), first)
        assert read_exactly(host, 22) == frame(b"answer")
        again.link.forget_request(second)
        os.kill(again.pid, signal.SIGKILL)
        third = monitor.next_daemon()
        assert third.greet().requests == frozenset()
        third.events.wait_for("unsent", frame(b"told"))
        assert [event for event in third.events.all() if event[0] != "up"] == []


def test_requests_of_a_lost_connection_are_kept_with_what_was_negotiated_on_it(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    with monitor.listen() as listener:
        daemon.link.open_bridge(f"unix:{monitor.host}")
        host = monitor.accept(listener)
        host.sendall(frame(b"negotiate", 1) + frame(b"wait", 2))
        first, second = (daemon.events.wait_for("frame", 1)[3] for _ in range(2))
        daemon.link.send_frame(1, frame(b"yes"), first, state=4)
        read_exactly(host, 19)
        host.close()
        monitor.accept(listener)
        daemon.events.wait_for("up", 2)
        os.kill(daemon.pid, signal.SIGKILL)
        again = monitor.next_daemon()
        again.greet()
        assert again.events.wait_for("up")[1:] == (2, 0)
        assert again.events.wait_for("again")[1:] == (1, frame(b"wait", 2), second, 1, 4)


def test_large_requests_are_kept_outside_of_the_monitors_own_memory(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    host = bridge_of(monitor, daemon)

    def anonymous_kib() -> int:
        text = Path(f"/proc/{monitor.process.pid}/smaps_rollup").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss_Anon:"))

    before = anonymous_kib()
    sent = [frame(bytes([number]) * 4_000_000, number) for number in range(10)]
    for one in sent:
        host.sendall(one)
        daemon.events.wait_for("frame", 1)
    assert anonymous_kib() - before < 16 * 1024
    os.kill(daemon.pid, signal.SIGKILL)
    again = monitor.next_daemon()
    again.greet()
    for one in sent:
        assert again.events.wait_for("again", 1)[2] == one
