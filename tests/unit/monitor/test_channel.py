"""The monitor's end of the link."""

from __future__ import annotations

import _socket
import errno
import os
import socket
from typing import Any

import pytest

from support.monitor_parts import Parts, no_descriptors
from uvmd.monitor import packets, wire
from uvmd.monitor.channel import Channel


class Ends:
    def __init__(self, parts: Parts) -> None:
        ours, self.daemon = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.packets: list[tuple[int, int, list[Any]]] = []
        self.lost: list[str] = []
        self.room = 0
        self.keep: list[int] = []
        self.channel = Channel(
            parts.loop, _socket.socket(fileno=ours.detach()), self._packet, self.lost.append, self._room
        )

    def _packet(self, op: int, tag: int, fields: list[Any], fds: list[int]) -> None:
        if op == wire.HELLO:
            self.channel.greeted = True
        self.packets.append((op, tag, fields))
        if fds:
            self.keep.append(fds.pop(0))

    def _room(self) -> None:
        self.room += 1

    def close(self) -> None:
        self.channel.close()
        self.daemon.close()


HELLO = wire.encode(wire.HELLO, 1, wire.VERSION)
ROOM = memoryview(bytearray(wire.ROOM_BYTES))


def test_packets_are_handed_on_and_descriptors_nobody_takes_are_closed(parts: Parts) -> None:
    ends = Ends(parts)
    ends.daemon.send(HELLO)
    before = len(os.listdir("/proc/self/fd"))
    with open("/dev/null") as null:
        packets.send(ends.daemon, wire.encode(wire.RESIZE, 2, 5, 9, 1), [null.fileno()] * 3)
    parts.run_until(lambda: len(ends.packets) == 2)
    assert ends.packets[1] == (wire.RESIZE, 2, [5, 9, 1])
    assert len(os.listdir("/proc/self/fd")) == before + 1
    os.close(ends.keep[0])
    ends.close()


def test_large_packets_go_both_ways(parts: Parts) -> None:
    ends = Ends(parts)
    body = os.urandom(300_000)
    ends.daemon.send(HELLO)
    packets.send(ends.daemon, wire.encode(wire.SEND_FRAME, 0, 1, 2, 3, 4, body))
    parts.run_until(lambda: len(ends.packets) == 2)
    assert ends.packets[1][2] == [1, 2, 3, 4, body]
    ends.channel.send(wire.BRIDGE_FRAME, 0, 1, 2, body)
    assert ends.channel.waiting_bytes > 300_000
    head, fds = packets.receive(ends.daemon, ROOM)
    size = wire.decode(head)[2][0]
    assert wire.decode(packets.read_large(fds[0], size))[2] == [1, 2, body]
    packets.close_all(fds)
    ends.daemon.send(wire.encode(wire.TAKEN, 0, size))
    parts.run_until(lambda: ends.room)
    assert ends.channel.waiting_bytes == 0
    ends.close()


def test_what_the_daemon_does_not_read_waits_in_order_and_is_counted(parts: Parts) -> None:
    ends = Ends(parts)
    with open("/dev/null") as null:
        for number in range(200):
            fds = [null.fileno()] if number % 50 == 0 else []
            ends.channel.send(wire.BRIDGE_FRAME, number, 1, 2, bytes(5000), fds=fds)
    assert ends.channel.waiting_bytes > 500_000
    seen = []

    def read() -> bool:
        try:
            while True:
                packet, fds = packets.receive(ends.daemon, ROOM, socket.MSG_DONTWAIT)
                seen.append((wire.decode(packet)[1], len(fds)))
                packets.close_all(fds)
        except BlockingIOError:
            return len(seen) == 200

    parts.run_until(read)
    assert seen == [(number, int(number % 50 == 0)) for number in range(200)]
    parts.run_until(lambda: ends.room)
    assert ends.channel.waiting_bytes == 0
    ends.close()


def held() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_large_packet_goes_either_way_with_the_last_descriptors(parts: Parts) -> None:
    ends = Ends(parts)
    ends.daemon.settimeout(5)
    ends.daemon.send(HELLO)
    body, before = os.urandom(70_000), held()
    with no_descriptors():
        ends.channel.send(wire.BRIDGE_FRAME, 0, 1, 2, body)
    head, fds = packets.receive(ends.daemon, ROOM)
    assert wire.decode(packets.read_large(fds[0], wire.decode(head)[2][0]))[2] == [1, 2, body]
    packets.close_all(fds)
    for number in range(5):  # what is set aside is set aside again
        packets.send(ends.daemon, wire.encode(wire.SEND_FRAME, 0, 1, number, 3, 4, body))
    with no_descriptors():
        parts.run_until(lambda: len(ends.packets) == 6)
    assert ends.packets[-1][2] == [1, 4, 3, 4, body]
    assert held() == before
    ends.close()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOMEM, errno.ETOOMANYREFS, errno.EBUSY])
def test_a_packet_that_lacks_something_waits_and_the_others_behind_it(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    ends, tried = Ends(parts), []
    ends.daemon.settimeout(5)

    def refuse(*_: object) -> None:
        tried.append(parts.loop.now())
        raise OSError(code, "not now")

    with monkeypatch.context() as patch:
        patch.setattr(packets, "send", refuse)
        ends.channel.send(wire.BRIDGE_FRAME, 1, 1, 2, bytes(70_000))
        ends.channel.send(wire.DRAINED, 2, 1)
        parts.run_until(lambda: len(tried) == 3)
    assert tried[2] - tried[0] > 0.15, "tried again by the clock, not as fast as can be"
    assert ends.channel.waiting_bytes > 70_000
    parts.run_until(lambda: ends.room)
    for op in (wire.LARGE, wire.DRAINED):
        packet, fds = packets.receive(ends.daemon, ROOM)
        assert wire.decode(packet)[0] == op
        packets.close_all(fds)
    ends.close()


def test_a_descriptor_that_must_wait_is_kept_with_the_last_ones(parts: Parts) -> None:
    ends = Ends(parts)
    ends.daemon.settimeout(5)
    with open("/dev/null") as null:
        while not ends.channel.waiting_bytes:
            ends.channel.send(wire.BRIDGE_FRAME, 0, 1, 2, bytes(5000))
        with no_descriptors():
            ends.channel.send(wire.REPLY, 7, fds=[null.fileno()])
    brought: list[int] = []

    def answered() -> bool:
        packet, fds = packets.receive(ends.daemon, ROOM)
        brought.extend(fds)
        return wire.decode(packet)[:2] == (wire.REPLY, 7)

    parts.run_until(answered)
    assert len(brought) == 1
    os.close(brought[0])
    ends.close()


def test_descriptors_set_aside_go_with_the_connection(parts: Parts) -> None:
    before = held()
    Ends(parts).close()
    assert held() == before


@pytest.mark.parametrize(
    "packet",
    [
        b"?",
        wire.encode(wire.RELEASE, 0, 1),  # before HELLO
        wire.encode(wire.EXITED, 0, 1, 2, 3),
        wire.encode(wire.LARGE, 0, 1000),
    ],
)
def test_nonsense_ends_the_connection_once(parts: Parts, packet: bytes) -> None:
    ends = Ends(parts)
    ends.daemon.send(packet)
    parts.run_until(lambda: ends.lost)
    ends.channel.send(wire.STOP, 0, b"into the void")
    assert len(ends.lost) == 1
    assert ends.packets == []
    assert ends.daemon.recv(1) == b""
    ends.close()


def test_a_daemon_that_closes_or_dies_is_noticed(parts: Parts) -> None:
    ends = Ends(parts)
    ends.daemon.close()
    parts.run_until(lambda: ends.lost)
    assert not ends.channel.open
    ends = Ends(parts)
    ends.daemon.close()
    ends.channel.send(wire.STOP, 0, b"x")
    assert ends.lost == [], "what it sent before it died may still be there to read"
    parts.run_until(lambda: ends.lost)
    assert ends.lost == ["end of file"]


def test_what_a_daemon_sent_before_it_died_counts_though_it_left_packets_unread(parts: Parts) -> None:
    ends = Ends(parts)
    ends.daemon.send(HELLO)
    parts.run_until(lambda: ends.packets)
    ends.channel.send(wire.DRAINED, 0, 1)
    answers = [wire.encode(wire.SEND_FRAME, 0, 1, number, 0, -1, b"answer") for number in range(5)]
    for answer in answers:
        ends.daemon.send(answer)
    ends.daemon.close()  # with a packet of ours unread: the kernel says ECONNRESET first
    ends.channel.send(wire.DRAINED, 0, 2)
    parts.run_until(lambda: ends.lost)
    assert [fields[1] for _, _, fields in ends.packets[1:]] == list(range(5))


def test_drain_takes_what_a_dead_daemon_had_still_sent(parts: Parts) -> None:
    ends = Ends(parts)
    ends.daemon.send(HELLO)
    for number in range(100):
        ends.daemon.send(wire.encode(wire.RELEASE, 0, number))
    ends.daemon.send(wire.encode(wire.FINISH, 0, 7))
    ends.daemon.close()
    ends.channel.drain()
    assert ends.packets[-1] == (wire.FINISH, 0, [7])
    assert len(ends.packets) == 102
