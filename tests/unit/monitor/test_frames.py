"""Frames out of a stream that comes in pieces."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.monitor.frames import HEADER_BYTES, FrameReader


def frame(body: bytes) -> bytes:
    return struct.pack("<IIQ", 0x10100101, HEADER_BYTES + len(body), 3) + body


FRAMES = st.lists(st.binary(max_size=80).map(frame), max_size=6)


def taken(reader: FrameReader) -> list[bytes]:
    found = []
    while (one := reader.next_frame()) is not None:
        found.append(one)
    return found


@given(sent=FRAMES, cuts=st.lists(st.integers(1, 60)))
def test_frames_survive_any_split_of_the_stream(sent: list[bytes], cuts: list[int]) -> None:
    stream, reader, seen = b"".join(sent), FrameReader(), []
    for cut in [*cuts, len(stream)]:
        reader.feed(stream[:cut])
        stream = stream[cut:]
        seen += taken(reader)
    assert seen == sent


@given(sent=FRAMES)
def test_frames_may_be_fed_before_any_is_taken(sent: list[bytes]) -> None:
    reader = FrameReader()
    for one in sent:
        reader.feed(one)
    assert taken(reader) == sent


@given(sent=FRAMES, step=st.integers(1, 200))
def test_frames_stay_what_they_were_when_the_next_is_read_over_them(sent: list[bytes], step: int) -> None:
    stream, reader, room, seen = b"".join(sent), FrameReader(), bytearray(step), []
    for at in range(0, len(stream), step):
        part = stream[at : at + step]
        room[: len(part)] = part
        reader.feed(memoryview(room)[: len(part)])
        seen += taken(reader)
        room[:] = bytes(step)
    assert seen == sent


@pytest.mark.parametrize("size", [0, 15, 101, 0xFFFFFFFF])
def test_an_impossible_size_is_refused_as_soon_as_the_header_is_there(size: int) -> None:
    reader = FrameReader(100)
    header = struct.pack("<IIQ", 1, size, 0)
    reader.feed(header[:15])
    assert reader.next_frame() is None
    reader.feed(header[15:])
    with pytest.raises(ValueError, match=r"allowed 16\.\.100"):
        reader.next_frame()


def test_the_largest_frame_that_is_allowed_is_taken() -> None:
    reader = FrameReader(100)
    reader.feed(frame(b"x" * 84))
    assert reader.next_frame() == frame(b"x" * 84)


@given(data=st.binary(max_size=200))
def test_garbage_is_never_worse_than_a_refusal(data: bytes) -> None:
    reader = FrameReader(1000)
    reader.feed(data)
    try:
        for one in taken(reader):
            assert HEADER_BYTES <= len(one) <= 1000
    except ValueError:
        pass
