"""The last 128 KiB of a stream."""

from __future__ import annotations

import errno
import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.monitor_parts import nonblocking_pipe
from uvmd.monitor.history import SIZE_BYTES, History, Scratch

SIZES = st.lists(
    st.sampled_from([0, 1, 7, 4095, 4096, 60_000, 65_536, 131_071, 131_072, 200_000]), max_size=6
)


@given(sizes=SIZES)
def test_appending_keeps_the_last_of_everything(sizes: list[int]) -> None:
    history, everything = History(), b""
    for number, size in enumerate(sizes):
        chunk = random.Random(number).randbytes(size)
        everything += chunk
        history.append(chunk)
    assert history.read() == everything[-SIZE_BYTES:]
    history.close()


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(0, 262_144), max_size=6))
def test_taking_from_the_scratch_pipe_keeps_the_last_of_everything(sizes: list[int]) -> None:
    scratch, history, everything = Scratch(262_144), History(), b""
    read_end, write_end = nonblocking_pipe()
    for number, size in enumerate(sizes):
        chunk = random.Random(number).randbytes(size)
        everything += chunk
        while chunk:
            written = os.write(write_end, chunk[:50_000])
            chunk = chunk[written:]
            copied = scratch.copy_of(read_end)
            assert copied == written
            os.read(read_end, copied)
            history.take(scratch, copied)
    assert history.read() == everything[-SIZE_BYTES:]
    history.close()
    for fd in (read_end, write_end, scratch.read_end, scratch.write_end, scratch._sink):
        os.close(fd)


def test_a_chunk_larger_than_the_ring_leaves_only_its_end() -> None:
    scratch, history = Scratch(262_144), History()
    data = random.Random(5).randbytes(200_000)
    os.write(scratch.write_end, data)
    history.append(b"before")
    history.take(scratch, len(data))
    assert history.read() == data[-SIZE_BYTES:]
    history.close()
    for fd in (scratch.read_end, scratch.write_end, scratch._sink):
        os.close(fd)


def test_nothing_written_is_nothing_kept_and_no_file_made() -> None:
    before = len(os.listdir("/proc/self/fd"))
    history = History()
    assert history.read() == b""
    history.append(b"")
    assert len(os.listdir("/proc/self/fd")) == before
    history.close()


def test_the_scratch_pipe_copies_without_taking_and_tells_the_end() -> None:
    scratch = Scratch(65_536)
    read_end, write_end = nonblocking_pipe()
    with pytest.raises(BlockingIOError):
        scratch.copy_of(read_end)
    os.write(write_end, b"abc")
    assert scratch.copy_of(read_end) == 3
    scratch.drop(3)
    assert os.read(read_end, 10) == b"abc"
    os.close(write_end)
    assert scratch.copy_of(read_end) == 0
    for fd in (read_end, scratch.read_end, scratch.write_end, scratch._sink):
        os.close(fd)


def no_descriptor(*_: object) -> int:
    raise OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize("before", [b"", b"a" * SIZE_BYTES])
def test_what_cannot_be_remembered_is_dropped_with_all_before_it(
    before: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch, history = Scratch(262_144), History()
    history.append(before)
    with monkeypatch.context() as patch:
        patch.setattr(History, "_file", no_descriptor)
        os.write(scratch.write_end, b"lost")
        history.take(scratch, 4)
        with pytest.raises(BlockingIOError):
            os.read(scratch.read_end, 1)
        history.append(b"lost too")
    assert history.read() == b""
    os.write(scratch.write_end, b"after")
    history.take(scratch, 5)
    history.append(b"wards")
    assert history.read() == b"afterwards"
    history.close()
    for fd in (scratch.read_end, scratch.write_end, scratch._sink):
        os.close(fd)
