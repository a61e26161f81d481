"""Packets over a socket, with descriptors and without."""

from __future__ import annotations

import errno
import os
import socket
import tracemalloc
from collections.abc import Iterator

import pytest

from support.monitor_parts import no_descriptors
from uvmd.monitor import packets, wire

ROOM = memoryview(bytearray(wire.ROOM_BYTES))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("size", [0, 1, 30_000, 61_000, 70_000, 5_000_000])
def test_a_packet_of_any_size_crosses_whole(pair: tuple[socket.socket, socket.socket], size: int) -> None:
    sent = wire.encode(wire.SEND_FRAME, 5, 1, os.urandom(size))
    packets.send(pair[0], sent)
    got, fds = packets.receive(pair[1], ROOM)
    if len(sent) > wire.MAX_INLINE_BYTES:
        op, _, (claimed,) = wire.decode(got)
        assert (op, claimed) == (wire.LARGE, len(sent))
        got = packets.read_large(fds[0], claimed)
    assert got == sent
    packets.close_all(fds)


def test_descriptors_arrive_close_on_exec(pair: tuple[socket.socket, socket.socket]) -> None:
    read_end, write_end = os.pipe()
    packets.send(pair[0], b"with descriptors", [read_end, write_end])
    data, fds = packets.receive(pair[1], ROOM)
    assert data == b"with descriptors"
    assert [os.get_inheritable(fd) for fd in fds] == [False, False]
    os.write(fds[1], b"x")
    assert os.read(read_end, 1) == b"x"
    packets.close_all([*fds, read_end, write_end])


def test_more_descriptors_than_allowed_are_refused_and_closed(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with open("/dev/null") as null:
        socket.send_fds(pair[0], [b"x"], [null.fileno()] * 60)
    with pytest.raises(wire.WireError):
        packets.receive(pair[1], ROOM)
    assert len(os.listdir("/proc/self/fd")) == before


def test_descriptors_are_foreseen_and_those_without_room_are_no_fault_of_the_peer(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    pair[0].send(b"without")
    packets.send(pair[0], b"with", [pair[0].fileno()] * 2)
    assert not packets.brings_descriptors(pair[1])
    assert packets.receive(pair[1], ROOM) == (b"without", [])
    before = len(os.listdir("/proc/self/fd"))
    with no_descriptors() as taken:
        os.close(taken.pop())
        assert packets.brings_descriptors(pair[1])
        with pytest.raises(OSError, match="no descriptors") as caught:
            packets.receive(pair[1], ROOM)
    assert caught.value.errno == errno.EMFILE
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_packet_above_the_limit_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].send(bytes(wire.MAX_INLINE_BYTES + 5000))
    with pytest.raises(wire.WireError):
        packets.receive(pair[1], ROOM)


def test_a_packet_is_its_own_once_it_was_received(pair: tuple[socket.socket, socket.socket]) -> None:
    for sent in (b"the first", b"another"):
        packets.send(pair[0], sent)
    first, _ = packets.receive(pair[1], ROOM)
    packets.receive(pair[1], ROOM)
    assert first == b"the first"


def test_a_small_packet_takes_a_small_block(pair: tuple[socket.socket, socket.socket]) -> None:
    packets.send(pair[0], bytes(1000))
    tracemalloc.start()
    try:
        packet, _ = packets.receive(pair[1], ROOM)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(packet) == 1000
    assert peak < 4096


@pytest.mark.parametrize("claimed", [0, -1, 9, 11, wire.MAX_PACKET_BYTES + 1])
def test_a_memfd_must_hold_what_was_announced(claimed: int) -> None:
    memfd = packets.sealed("test", b"0123456789")
    assert packets.read_large(memfd, 10) == b"0123456789"
    with pytest.raises(wire.WireError):
        packets.read_large(memfd, claimed)
    os.close(memfd)


def test_what_its_sender_can_still_change_is_refused() -> None:
    memfd = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.write(memfd, b"0123456789")
    with pytest.raises(wire.WireError):
        packets.read_large(memfd, 10)
    os.close(memfd)
    with open("/proc/self/cmdline", "rb") as no_memfd, pytest.raises(wire.WireError):
        packets.read_large(no_memfd.fileno(), 1)
