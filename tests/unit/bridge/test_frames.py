from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.bridge.frames import HEADER, HEADER_BYTES, MAX_INBOUND_BYTES, Decoder, Frame, split
from uvmd.errors import ProtocolError

frames = st.builds(Frame, st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.binary(max_size=80))


@given(sent=st.lists(frames, max_size=5), cuts=st.lists(st.integers(1, 40)))
def test_frames_survive_any_split_of_the_stream(sent: list[Frame], cuts: list[int]) -> None:
    stream, decoder, seen = b"".join(frame.encode() for frame in sent), Decoder(), []
    for cut in [*cuts, len(stream)]:
        decoder.feed(stream[:cut])
        stream = stream[cut:]
        while (frame := decoder.next_frame()) is not None:
            seen.append(frame)
    assert seen == sent
    assert decoder.pending_bytes == 0


@given(frames)
def test_one_frame_splits_into_what_it_was_made_of(frame: Frame) -> None:
    assert split(frame.encode()) == frame


def test_the_bytes_are_those_of_the_specification() -> None:
    body = (
        b'{"ContainerId":"","ActivityId":"00000000-0000-0000-0000-000000000000",'
        b'"MinimumVersion":4,"MaximumVersion":4}\n'
    )
    frame = Frame(0x10100B01, 0, body).encode()
    assert len(frame) == 125
    assert frame[:16] == bytes.fromhex("010b10107d000000 0000000000000000")


@pytest.mark.parametrize("size", [0, 1, 15, MAX_INBOUND_BYTES + 1, 2**32 - 1])
def test_an_impossible_size_is_refused_before_its_body_comes(size: int) -> None:
    decoder = Decoder()
    decoder.feed(HEADER.pack(0x10100101, size, 0))
    with pytest.raises(ProtocolError, match=str(size)):
        decoder.next_frame()


def test_the_smallest_and_the_largest_frame_are_taken() -> None:
    decoder = Decoder(max_bytes=100)
    for size in (16, 100):
        decoder.feed(Frame(1, 2, bytes(size - HEADER_BYTES)).encode())
        assert decoder.next_frame() == Frame(1, 2, bytes(size - HEADER_BYTES))


def test_a_torn_frame_shows_in_what_is_pending() -> None:
    decoder = Decoder()
    decoder.feed(Frame(1, 2, b"body").encode()[:-1])
    assert decoder.next_frame() is None
    assert decoder.pending_bytes == 19


ONE = Frame(1, 2, b"x").encode()


@pytest.mark.parametrize("frame", [b"", b"short", ONE[:-1], ONE + b"x", ONE + ONE])
def test_what_is_not_exactly_one_frame_does_not_split(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        split(frame)
