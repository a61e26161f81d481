"""The mirror's two ends, joined by a socket pair in one process."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.api.testing.guest.inside import mux


class Ends:
    """A guest's end and a host's end; what the guest opens is connected to ``outside``."""

    def __init__(self) -> None:
        self._links = socket.socketpair()
        self.told: list[tuple[int, bytes]] = []
        self.outside: list[socket.socket] = []
        self.refuse = False
        self.guest = mux.Mux(self._links[0].fileno(), lambda kind, body: self.told.append((kind, body)))
        self.host = mux.Mux(self._links[1].fileno(), self._connect)

    def _connect(self, kind: int, body: bytes) -> socket.socket | None:
        assert (kind, body) == (mux.OPEN, b"host")
        if self.refuse:
            return None
        near, far = socket.socketpair()
        far.setblocking(False)
        self.outside.append(far)
        return near

    def dial(self) -> socket.socket:
        near, far = socket.socketpair()
        far.setblocking(False)
        self.guest.open(near, "host")
        return far

    def turn(self, times: int = 4) -> None:
        for _ in range(times):
            assert self.guest.step(0)
            assert self.host.step(0)

    def close(self) -> None:
        self.guest.reset()
        self.host.reset()
        for sock in (*self._links, *self.outside):
            sock.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.close()


def received(sock: socket.socket, turn: Callable[[], None], count: int) -> bytes:
    data = b""
    for _ in range(2000):
        if len(data) >= count:
            break
        turn()
        try:
            data += sock.recv(1 << 20)
        except BlockingIOError:
            continue
    return data


@given(
    frames=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 9), st.binary(max_size=30)), max_size=6),
    cuts=st.lists(st.integers(1, 30)),
)
def test_frames_survive_any_split_of_the_stream(
    frames: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(mux.encode(*frame) for frame in frames)
    decoder, seen = mux.Decoder(), []
    for cut in [*cuts, len(stream)]:
        seen += decoder.feed(stream[:cut])
        stream = stream[cut:]
    assert seen == frames


def test_bytes_pass_in_both_directions(ends: Ends) -> None:
    inside = ends.dial()
    inside.send(b"from the guest")
    ends.turn()
    (outside,) = ends.outside
    assert outside.recv(100) == b"from the guest"
    outside.send(b"from the host")
    ends.turn()
    assert inside.recv(100) == b"from the host"
    inside.close()


def test_a_half_closed_stream_still_carries_the_other_direction(ends: Ends) -> None:
    inside = ends.dial()
    inside.shutdown(socket.SHUT_WR)
    ends.turn()
    (outside,) = ends.outside
    assert outside.recv(100) == b""
    outside.send(b"answer")
    ends.turn()
    assert inside.recv(100) == b"answer"
    outside.shutdown(socket.SHUT_WR)
    ends.turn()
    assert inside.recv(100) == b""
    inside.close()


def test_a_closed_end_closes_the_other_one(ends: Ends) -> None:
    inside = ends.dial()
    ends.turn()
    ends.outside.pop().close()
    ends.turn()
    assert inside.recv(100) == b""
    with pytest.raises(BrokenPipeError):
        inside.send(b"x")
    inside.close()


def test_the_last_words_before_a_close_arrive(ends: Ends) -> None:
    inside = ends.dial()
    inside.send(b"last words")
    inside.close()
    ends.turn()
    assert ends.outside[0].recv(100) == b"last words"
    assert ends.outside[0].recv(100) == b""


def test_a_host_that_does_not_listen_closes_the_stream(ends: Ends) -> None:
    ends.refuse = True
    inside = ends.dial()
    ends.turn()
    assert inside.recv(100) == b""
    inside.close()


def test_a_reader_who_stops_stops_its_writer_and_nobody_else(ends: Ends) -> None:
    slow, other = ends.dial(), ends.dial()
    ends.turn()
    sent = 0
    for _ in range(400):
        try:
            sent += slow.send(bytes(1 << 16))
        except BlockingIOError:
            pass
        ends.turn(1)
    # A window, and what the sockets at both ends hold.
    assert sent < 4 << 20
    other.send(b"still moving")
    ends.turn()
    assert ends.outside[1].recv(100) == b"still moving"
    assert len(received(ends.outside[0], ends.turn, sent)) == sent
    slow.close()
    other.close()


def test_what_the_owner_sends_before_reading_goes_first(ends: Ends) -> None:
    inside = ends.dial()
    ends.turn()
    ends.host._before = lambda: ends.host.send(mux.LISTEN, 0, b"host_1")
    ends.outside[0].send(b"request")
    ends.host.step(0)
    ends.host._before = None
    ends.guest.step(0)
    ends.turn()
    assert ends.told[0] == (mux.LISTEN, b"host_1")
    assert inside.recv(100) == b"request"
    inside.close()


def test_a_link_that_ends_is_told(ends: Ends) -> None:
    ends._links[1].shutdown(socket.SHUT_RDWR)
    assert not ends.guest.step(0)
