"""Copying, half-closes, and what happens when one of our ends breaks."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from unit.client.conftest import sockets_in
from uvmd.client.address import Address
from uvmd.client.errors import AddressError, StreamError
from uvmd.client.ports import StreamPorts, random_ports
from uvmd.client.streams import Stdio, Streams, write_all


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for descriptor in (read, write):
        try:
            os.close(descriptor)
        except OSError:
            pass


def test_an_output_is_copied_and_its_end_answered_by_closing(pipe: tuple[int, int]) -> None:
    guest, ours = socket.socketpair()
    streams = Streams(None, ours, None)
    streams.copy(Stdio(stdout=pipe[1]))
    guest.sendall(b"hello")
    guest.shutdown(socket.SHUT_WR)
    assert guest.recv(1) == b""
    assert os.read(pipe[0], 100) == b"hello"
    assert streams.first_output > 0
    streams.finish()
    guest.close()


def test_the_end_of_our_input_is_a_half_close(pipe: tuple[int, int]) -> None:
    guest, ours = socket.socketpair()
    streams = Streams(ours, None, None)
    streams.copy(Stdio(stdin=pipe[0]))
    os.write(pipe[1], b"input")
    os.close(pipe[1])
    data = b""
    while chunk := guest.recv(100):
        data += chunk
    assert data == b"input"
    # Only a half-close: the other direction still works.
    guest.sendall(b"x")
    streams.close()
    guest.close()


def test_copying_input_ends_when_the_guest_closes(pipe: tuple[int, int]) -> None:
    guest, ours = socket.socketpair()
    streams = Streams(ours, None, None)
    streams.copy(Stdio(stdin=pipe[0]))
    guest.close()
    streams.finish()
    assert ours.fileno() == -1


def test_a_broken_output_is_told_and_the_stream_still_read_to_its_end(pipe: tuple[int, int]) -> None:
    guest, ours = socket.socketpair()
    streams = Streams(None, ours, None)
    told = threading.Event()
    os.close(pipe[0])
    streams.copy(Stdio(stdout=pipe[1]), on_broken=told.set)
    guest.sendall(b"x")
    assert told.wait(10)
    guest.sendall(b"y" * 1_000_000)
    guest.shutdown(socket.SHUT_WR)
    assert guest.recv(1) == b""
    streams.finish()
    guest.close()


def test_an_output_nobody_wants_is_drained() -> None:
    guest, ours = socket.socketpair()
    streams = Streams(None, ours, None)
    streams.copy(Stdio())
    guest.sendall(b"y" * 1_000_000)
    guest.shutdown(socket.SHUT_WR)
    assert guest.recv(1) == b""
    streams.close()
    guest.close()


def test_writing_copes_with_a_descriptor_that_would_block(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    data = bytes(200_000)
    writer = threading.Thread(target=write_all, args=(pipe[1], data))
    writer.start()
    received = 0
    while received < len(data):
        received += len(os.read(pipe[0], 65536))
    writer.join(10)


def test_collecting_gives_up_on_an_input_that_is_not_read() -> None:
    guest_in, ours_in = socket.socketpair()
    guest_out, ours_out = socket.socketpair()
    guest_in.close()
    guest_out.sendall(b"done")
    guest_out.close()
    streams = Streams(ours_in, ours_out, None)
    assert streams.collect(b"x" * 100_000) == (b"done", b"")
    streams.close()


def test_ports_are_listened_on_before_they_are_told(address: Address) -> None:
    with StreamPorts(address, random_ports(), stdin=True, stdout=False, stderr=True) as ports:
        stdin, stdout, stderr = ports.ports
        assert stdout is None
        assert sockets_in(address) == sorted([f"b.sock_{stdin}", f"b.sock_{stderr}"])
    assert sockets_in(address) == []


def test_a_taken_port_is_passed_over(address: Address) -> None:
    taken = address.listen(10)
    numbers = iter([10, 11])
    with StreamPorts(address, lambda: next(numbers), stdin=True, stdout=False, stderr=False) as ports:
        assert ports.ports[0] == 11
    taken.close()


def test_no_port_at_all_is_a_stream_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Address, __: int | None = None) -> None:
        raise AddressError("no")

    monkeypatch.setattr(Address, "listen", fail)
    with pytest.raises(StreamError):
        StreamPorts(Address("/x"), random_ports(), stdin=True, stdout=True, stderr=True)


def test_port_numbers_stay_in_the_customary_range_and_differ() -> None:
    next_port = random_ports()
    ports = [next_port() for _ in range(100)]
    assert len(set(ports)) == 100
    assert all(0x40000001 <= port <= 0x7FFFFFFF for port in ports)
