"""The bridge connection, with a listener in place of the daemon."""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path

import pytest

from support.live_monitor import listen
from support.monitor_parts import Parts, read_available
from uvmd.monitor import bridge as bridge_room
from uvmd.monitor import kept
from uvmd.monitor.bridge import Bridge
from uvmd.monitor.kept import Kept, Request


def frame(body: bytes) -> bytes:
    return struct.pack("<IIQ", 0x10100101, 16 + len(body), 0) + body


class Listener:
    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []
        self.waiting = 0

    def bridge_up(self, generation: int) -> None:
        self.events.append(("up", generation))

    def bridge_frame(self, request: Request, frame: bytes) -> None:
        self.events.append(("frame", request.generation, frame, request.number))

    def bridge_unsent(self, request: int, slot: int, frame: bytes) -> None:
        self.events.append(("unsent", frame))

    def bridge_down(self, generation: int, reason: str) -> None:
        self.events.append(("down", generation))

    def bridge_finished(self, reason: str) -> None:
        self.events.append(("finished", reason))

    def daemon_waiting_bytes(self) -> int:
        return self.waiting


class Set:
    def __init__(self, parts: Parts, tmp_path: Path) -> None:
        self.parts = parts
        self.listener = Listener()
        self.kept = Kept()
        self.bridge = Bridge(parts.loop, parts.log, self.listener, self.kept)
        self.path = tmp_path / "host"
        self.server = listen(self.path)
        self.host: socket.socket | None = None

    def connect(self) -> socket.socket:
        generation = self.bridge.generation
        self.bridge.open(f"unix:{self.path}")
        self.parts.run_until(lambda: self.bridge.generation > generation)
        host, _ = self.server.accept()
        host.setblocking(False)
        return host

    def events(self, kind: str) -> list[tuple[object, ...]]:
        return [event for event in self.listener.events if event[0] == kind]

    def close(self) -> None:
        self.bridge.shut("test")
        self.server.close()


def test_a_lost_connection_hands_back_frames_then_says_down_then_comes_again(
    parts: Parts, tmp_path: Path
) -> None:
    made = Set(parts, tmp_path)
    host = made.connect()
    frames = [frame(bytes(60_000)) for _ in range(20)]
    for one in frames:
        made.bridge.send(1, one)
    assert not made.bridge.flushed
    host.close()
    parts.run_until(lambda: made.events("down"))
    kinds = [event[0] for event in made.listener.events]
    assert kinds[0] == "up"
    assert kinds[-1] == "down"
    assert set(kinds[1:-1]) == {"unsent"}
    assert len(kinds) > 10
    parts.run_until(lambda: made.events("up")[1:])
    made.server.accept()[0].close()
    made.close()


def test_a_daemon_that_lags_behind_stops_the_reading_until_it_has_caught_up(
    parts: Parts, tmp_path: Path
) -> None:
    made = Set(parts, tmp_path)
    host = made.connect()
    made.listener.waiting = 65 * 1024 * 1024
    host.send(frame(b"waits"))
    passed: list[int] = []
    parts.loop.call_later(0.02, lambda: passed.append(1))
    parts.run_until(lambda: passed)
    assert made.events("frame") == []
    made.listener.waiting = 40 * 1024 * 1024
    made.bridge.resume()
    assert made.bridge._paused
    made.listener.waiting = 1000
    made.bridge.resume()
    parts.run_until(lambda: made.events("frame"))
    host.close()
    made.close()


def test_a_host_with_too_many_open_requests_is_read_on_when_some_are_answered(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MANY", 3)
    monkeypatch.setattr(kept, "FEWER", 1)
    made = Set(parts, tmp_path)
    host = made.connect()
    for number in range(4):
        host.send(frame(b"%d" % number))
        parts.run_until(lambda number=number: len(made.events("frame")) > number)
    host.send(frame(b"waits"))
    passed: list[int] = []
    parts.loop.call_later(0.02, lambda: passed.append(1))
    parts.run_until(lambda: passed)
    assert made.bridge._paused
    open_ = [one.number for one in made.kept]
    for number in open_[:3]:
        made.bridge.send(1, frame(b"answer"), number)
    parts.run_until(lambda: len(made.events("frame")) > 4)
    host.close()
    made.close()


def test_an_answer_is_written_in_pieces_if_need_be(parts: Parts, tmp_path: Path) -> None:
    made = Set(parts, tmp_path)
    host = made.connect()
    sent = frame(os.urandom(2_000_000))
    made.bridge.send(1, sent)
    received = b""

    def finished() -> bool:
        nonlocal received
        received += read_available(host)
        return len(received) == len(sent)

    parts.run_until(finished)
    assert received == sent
    assert made.bridge.flushed
    host.close()
    made.close()


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.ENOBUFS])
def test_a_kernel_without_memory_for_a_moment_does_not_end_the_connection(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    made = Set(parts, tmp_path)
    host, lacking = made.connect(), {"readv": 2, "write": 2}

    def lacks(name: str) -> None:
        real = getattr(os, name)

        def call(fd: int, *rest: object) -> object:
            if fd == made.bridge._in and lacking[name]:
                lacking[name] -= 1
                raise OSError(code, "no memory")
            return real(fd, *rest)

        monkeypatch.setattr(bridge_room.os, name, call)

    lacks("readv")
    lacks("write")
    host.sendall(frame(b"question"))
    made.bridge.send(1, frame(b"answer"))
    parts.run_until(
        lambda: made.bridge.flushed and [one for one in made.listener.events if one[0] == "frame"]
    )
    assert read_available(host) == frame(b"answer")
    assert lacking == {"readv": 0, "write": 0}
    assert [one for one in made.listener.events if one[0] == "down"] == []
    host.close()
    made.close()


def test_a_frame_for_another_generation_comes_straight_back(parts: Parts, tmp_path: Path) -> None:
    made = Set(parts, tmp_path)
    made.bridge.send(7, b"before any")
    host = made.connect()
    made.bridge.send(2, b"too early")
    made.bridge.close(0)
    assert made.events("unsent") == [("unsent", b"before any"), ("unsent", b"too early")]
    assert made.bridge.up
    host.close()
    made.close()


def test_opening_the_same_target_again_leaves_the_connection_alone(parts: Parts, tmp_path: Path) -> None:
    made = Set(parts, tmp_path)
    host = made.connect()
    made.bridge.open(f"unix:{made.path}")
    assert made.bridge.up
    assert [event[:2] for event in made.listener.events] == [("up", 1)]
    host.close()
    made.close()


def test_opening_another_target_closes_the_old_connection(parts: Parts, tmp_path: Path) -> None:
    made = Set(parts, tmp_path)
    first = made.connect()
    made.bridge.open(f"unix:{tmp_path}/nobody")
    second = made.connect()
    assert first.recv(1) == b""
    assert [event[:2] for event in made.listener.events] == [("up", 1), ("down", 1), ("up", 2)]
    first.close()
    second.close()
    made.close()


def test_a_reason_is_logged_once_however_often_it_is_tried(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge_room, "RETRY_S", 0.001)
    made = Set(parts, tmp_path)
    os.unlink(made.path)
    made.bridge.open(f"unix:{made.path}")
    passed: list[int] = []
    parts.loop.call_later(0.05, lambda: passed.append(1))
    parts.run_until(lambda: passed)
    assert len([line for line in parts.log.lines if os.strerror(errno.ENOENT) in line]) == 1
    made.close()


@pytest.mark.parametrize("target", ["", "tcp:1", "unix:", "vsock:2"])
def test_a_target_that_is_none_is_refused(parts: Parts, tmp_path: Path, target: str) -> None:
    made = Set(parts, tmp_path)
    with pytest.raises(ValueError, match="address"):
        made.bridge.open(target)
    made.close()


def test_requests_without_an_answer_stop_the_reading_when_they_are_too_much(
    parts: Parts, tmp_path: Path
) -> None:
    made = Set(parts, tmp_path)
    host = made.connect()
    held = [made.kept.add(1, bytes(16 << 20)) for _ in range(5)]
    host.send(frame(b"waits"))
    passed: list[int] = []
    parts.loop.call_later(0.02, lambda: passed.append(1))
    parts.run_until(lambda: passed)
    assert made.events("frame") == []
    for request in held:
        made.bridge.send(1, frame(b"answer"), request.number)
    parts.run_until(lambda: made.events("frame"))
    assert [one.frame for one in made.kept] == [frame(b"waits")]
    host.close()
    made.close()


def test_waits_that_tell_of_one_end_are_each_written_by_one_daemon(parts: Parts, tmp_path: Path) -> None:
    made = Set(parts, tmp_path)
    host = made.connect()
    one, two, three = (made.kept.add(1, b"wait %d" % number) for number in range(3))
    made.bridge.send(1, frame(bytes(4_000_000)))
    made.bridge.send(1, frame(b"code"), one.number, 4)
    made.bridge.send(1, frame(b"code"), two.number, 4)
    made.bridge.send(0, frame(b"code"), three.number, 4)
    assert not made.bridge.flushed
    assert made.bridge.unsent() == [(three.number, 4, frame(b"code"))]
    host.close()
    made.close()


def test_equal_news_of_two_ends_is_told_of_each_and_then_no_more(parts: Parts, tmp_path: Path) -> None:
    made = Set(parts, tmp_path)
    for slot in (4, 5):
        made.bridge.send(0, frame(b"the same container"), slot=slot)
    assert made.bridge.unsent() == [(0, slot, frame(b"the same container")) for slot in (4, 5)]
    host = made.connect()
    for _, slot, again in made.bridge.unsent():
        made.bridge.send(1, again, slot=slot)
    parts.run_until(lambda: made.bridge.flushed)
    assert made.bridge.unsent() == []
    host.close()
    made.close()


def test_an_answer_that_was_written_leaves_the_news_of_the_same_end_in_place(
    parts: Parts, tmp_path: Path
) -> None:
    made = Set(parts, tmp_path)
    host = made.connect()
    wait = made.kept.add(1, b"wait")
    made.bridge.send(0, frame(b"exit"), slot=4)
    made.bridge.send(1, frame(b"code"), wait.number, 4)
    parts.run_until(lambda: made.bridge.flushed)
    assert made.bridge.unsent() == [(0, 4, frame(b"exit"))]
    host.close()
    made.close()


def negotiate() -> bytes:
    return struct.pack("<IIQ", 0x10100B01, 18, 0) + b"{}"


def leave_too_much(made: Set) -> list[Request]:
    """Have the last connection leave more requests without an answer than are kept."""
    host = made.connect()
    left = [made.kept.add(1, bytes(16 << 20)) for _ in range(5)]
    host.close()
    made.parts.run_until(lambda: made.events("down"))
    return left


def test_what_older_connections_have_left_does_not_keep_a_new_one_from_negotiating(
    parts: Parts, tmp_path: Path
) -> None:
    made = Set(parts, tmp_path)
    left = leave_too_much(made)
    parts.run_until(lambda: made.events("up")[1:])
    made.server.accept()[0].close()
    host = made.connect()
    host.send(negotiate() + frame(b"in the same piece"))
    parts.run_until(lambda: made.events("frame"))
    ((_, generation, _, number),) = made.events("frame")
    made.bridge.send(generation, frame(b"negotiated"), number, state=4)  # type: ignore[arg-type]
    passed: list[int] = []
    parts.loop.call_later(0.02, lambda: passed.append(1))
    parts.run_until(lambda: passed)
    assert made.bridge._paused
    assert not made.events("frame")[1:]
    for one in left:
        made.bridge.send(0, frame(b"answer"), one.number)
    parts.run_until(lambda: made.events("frame")[1:])
    host.send(frame(b"another"))
    parts.run_until(lambda: made.events("frame")[2:])
    assert [event[2] for event in made.events("frame")[1:]] == [
        frame(b"in the same piece"),
        frame(b"another"),
    ]
    host.close()
    made.close()


def test_more_is_not_added_to_what_waits_for_a_host_by_connections_that_do_not_negotiate(
    parts: Parts, tmp_path: Path
) -> None:
    made = Set(parts, tmp_path)
    leave_too_much(made)
    parts.run_until(lambda: made.events("up")[1:])
    host, _ = made.server.accept()
    host.send(frame(b"wait"))
    parts.run_until(lambda: made.events("down")[1:])
    host.close()
    assert made.events("frame") == []
    assert [line for line in parts.log.lines if "one that negotiates" in line]
    made.close()


def test_a_host_that_goes_while_it_is_not_read_is_noticed(parts: Parts, tmp_path: Path) -> None:
    made = Set(parts, tmp_path)
    host = made.connect()
    made.listener.waiting = 65 * 1024 * 1024
    host.send(frame(b"waits"))
    parts.run_until(lambda: made.bridge._paused)
    host.close()
    parts.run_until(lambda: made.events("down"))
    made.close()


def test_what_nobody_is_writing_is_known_by_request_and_slot(parts: Parts, tmp_path: Path) -> None:
    made = Set(parts, tmp_path)
    first, second = made.kept.add(1, b"q"), made.kept.add(1, b"r")
    made.bridge.send(0, frame(b"code"), first.number, 4)
    made.bridge.send(0, frame(b"exit"), slot=5)
    assert made.bridge.unsent() == [(first.number, 4, frame(b"code")), (0, 5, frame(b"exit"))]
    assert made.events("unsent") == []
    host = made.connect()
    made.bridge.send(1, frame(b"code"), first.number, 4, 4)
    made.bridge.send(1, frame(b"exit"), slot=5)
    assert made.bridge.unsent() == []
    assert [one.number for one in made.kept] == [second.number]
    assert made.bridge.state(1) == 4
    host.close()
    made.close()
