"""What a child gets, as far as it can be told without one; see test_live_run for the rest."""

from __future__ import annotations

import ctypes
import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.monitor import _sys, spawn


def test_the_service_managers_words_do_not_reach_a_runtime() -> None:
    env = [b"A=1", b"NOTIFY_SOCKET=x", b"LISTEN_FDS=2", b"WATCHDOG_USEC=3", b"UVMD_MONITOR_FD=3", b"B=c=d"]
    assert spawn.clean_environment(env) == {b"A": b"1", b"B": b"c=d"}
    assert spawn.exact_environment(env)[b"NOTIFY_SOCKET"] == b"x"


@given(entries=st.lists(st.binary(max_size=20)))
def test_entries_that_are_no_assignments_are_left_out(entries: list[bytes]) -> None:
    for name in spawn.exact_environment(entries):
        assert name
        assert b"=" not in name


@given(picks=st.lists(st.integers(0, 7), min_size=3, max_size=9))
def test_no_source_is_in_the_range_that_is_written_over(picks: list[int]) -> None:
    base = [os.dup(1) for _ in range(8)]
    try:
        sources, lifted = spawn._lift([min(base[pick], pick + 1) for pick in picks])
        assert len(sources) == len(picks)
        assert all(fd >= len(picks) for fd in sources)
        for fd in lifted:
            assert not os.get_inheritable(fd)
            os.close(fd)
    finally:
        for fd in base:
            os.close(fd)


def test_tee_copies_a_pipe_without_emptying_it() -> None:
    first, second = os.pipe(), os.pipe()
    os.write(first[1], b"data")
    assert _sys.tee(first[0], second[1], 100) == 4
    assert os.read(first[0], 10) == os.read(second[0], 10) == b"data"
    with pytest.raises(BlockingIOError):
        _sys.tee(first[0], second[1], 100)
    with pytest.raises(OSError) as caught:
        _sys.tee(first[0], first[0], 100)
    assert caught.value.errno in (errno.EINVAL, errno.EBADF)
    for fd in (*first, *second):
        os.close(fd)


def test_a_signal_does_not_end_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(-1, errno.EINTR), (-1, errno.EINTR), (7, 0)]

    def tee(*_: int) -> int:
        count, code = answers.pop(0)
        ctypes.set_errno(code)
        return count

    monkeypatch.setattr(_sys, "_tee", tee)
    assert _sys.tee(0, 1, 100) == 7


def test_large_blocks_can_be_told_to_go_back() -> None:
    _sys.return_large_blocks()
