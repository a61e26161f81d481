"""The relay of standard input."""

from __future__ import annotations

import _socket
import errno
import os
import random
import socket

import pytest

from support.monitor_parts import Parts, nonblocking_pipe
from uvmd.monitor import input as input_room
from uvmd.monitor.input import Input


def make(parts: Parts) -> tuple[Input, socket.socket, int]:
    ours, host = socket.socketpair()
    ours.setblocking(False)
    read_end, write_end = nonblocking_pipe()
    relay = Input(parts.tools, _socket.socket(fileno=ours.detach()), write_end, terminal=False)
    relay.start()
    return relay, host, read_end


def read_pipe(read_end: int) -> bytes | None:
    """What is there; None at the end."""
    parts = []
    while True:
        try:
            data = os.read(read_end, 1 << 16)
        except BlockingIOError:
            return b"".join(parts)
        if not data:
            return b"".join(parts) or None
        parts.append(data)


@pytest.mark.parametrize("spliced", [True, False])
def test_what_the_host_sends_reaches_the_pipe_unchanged(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, spliced: bool
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EINVAL, "splice")

    if not spliced:
        monkeypatch.setattr(input_room.os, "splice", refuse)
    relay, host, read_end = make(parts)
    data = random.Random(1).randbytes(400_000)
    host.setblocking(False)
    view, received = memoryview(data), b""

    def finished() -> bool:
        nonlocal view, received
        try:
            if view:
                view = view[host.send(view) :]
        except BlockingIOError:
            pass
        received += read_pipe(read_end) or b""
        return len(received) == len(data)

    parts.run_until(finished)
    assert received == data
    host.shutdown(socket.SHUT_WR)
    parts.run_until(lambda: read_pipe(read_end) is None)
    relay.close()
    host.close()
    os.close(read_end)


def test_without_a_connection_the_pipe_ends_at_once(parts: Parts) -> None:
    read_end, write_end = nonblocking_pipe()
    relay = Input(parts.tools, None, write_end, terminal=False)
    relay.start()
    assert os.read(read_end, 1) == b""
    relay.stop()
    relay.close()
    os.close(read_end)


def test_a_process_that_closes_its_input_ends_the_copy_and_keeps_the_connection(parts: Parts) -> None:
    relay, host, read_end = make(parts)
    os.close(read_end)
    host.sendall(b"for nobody")
    parts.run_until(lambda: relay._target < 0)
    host.setblocking(False)
    with pytest.raises(BlockingIOError):
        host.recv(1)
    relay.stop()
    with pytest.raises(BlockingIOError):
        host.recv(1)
    relay.close()
    # What was not read makes the kernel reset the connection instead of ending it.
    with pytest.raises(ConnectionResetError):
        host.recv(1)
    host.close()


def test_a_host_that_vanishes_ends_the_input(parts: Parts) -> None:
    relay, host, read_end = make(parts)
    host.close()
    parts.run_until(lambda: read_pipe(read_end) is None)
    relay.stop()
    relay.close()
    os.close(read_end)
