"""The non-blocking end that shares a connection: what was sent, and what was not."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.bridge.frames import Decoder, Frame
from uvmd.client.peer import Peer
from uvmd.errors import ProtocolError


@given(bodies=st.lists(st.binary(max_size=60_000), min_size=1, max_size=6), read=st.integers(1, 400_000))
def test_what_was_read_and_what_is_unsent_make_the_whole(bodies: list[bytes], read: int) -> None:
    left, right = socket.socketpair()
    left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    right.settimeout(0)
    peer = Peer(left)
    for index, body in enumerate(bodies):
        peer.queue(1, index, body)
        assert peer.flush()
    decoder, seen, taken = Decoder(), list[Frame](), 0
    while taken < read:
        try:
            data = right.recv(min(8192, read - taken))
        except BlockingIOError:
            break
        taken += len(data)
        decoder.feed(data)
        assert peer.flush()
    while (frame := decoder.next_frame()) is not None:
        seen.append(frame)
    rest = peer.unsent()
    # The other end drops a torn frame, so the first unsent one is whole again.
    assert [frame.body for frame in seen] == bodies[: len(seen)]
    assert len(seen) + len(rest) <= len(bodies)
    assert (
        rest
        == [Frame(1, index, body).encode() for index, body in enumerate(bodies)][len(bodies) - len(rest) :]
    )
    assert peer.backlog_bytes <= sum(map(len, rest))
    peer.close()
    right.close()


def test_a_lost_other_end_is_noticed_in_both_directions() -> None:
    left, right = socket.socketpair()
    peer = Peer(left)
    assert peer.receive()
    right.close()
    peer.queue(1, 1, b"")
    assert not peer.flush()
    assert not peer.receive()
    peer.close()


def test_broken_framing_is_raised_for_the_owner_to_judge() -> None:
    left, right = socket.socketpair()
    peer = Peer(left)
    right.sendall(bytes(16))
    assert peer.receive()
    with pytest.raises(ProtocolError):
        peer.next_frame()
    peer.close()
    right.close()
