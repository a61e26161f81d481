"""Requests without an answer, and what is done once for them."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from support.monitor_parts import no_descriptors
from uvmd.monitor import kept as room
from uvmd.monitor.kept import Kept, Once


class Asked:
    """Where answers go."""

    def __init__(self) -> None:
        self.given: list[Any] = []

    def give(self, *fields: Any, fds: Any = ()) -> None:
        self.given.append(fields)

    def fail(self, error: OSError) -> None:
        self.given.append(error.errno)


def test_a_request_is_kept_until_it_is_forgotten() -> None:
    kept = Kept()
    first, second = kept.add(1, b"one"), kept.add(1, b"two" * 40_000)
    assert second.number == first.number + 1
    assert [one.frame for one in kept] == [b"one", b"two" * 40_000]
    assert kept.bytes > 120_000
    kept.answered(first.number, b"answer")
    assert kept.get(first.number) is first
    descriptors = len(os.listdir("/proc/self/fd"))
    for number in (first.number, second.number, 7):
        kept.forget(number)
    assert kept.bytes == 0
    assert len(os.listdir("/proc/self/fd")) == descriptors - 1


def test_a_large_request_is_kept_though_there_is_no_descriptor_for_it() -> None:
    kept = Kept()
    with no_descriptors():
        request = kept.add(1, b"large" * 20_000)
    assert request.frame == b"large" * 20_000
    kept.forget(request.number)
    assert kept.bytes == 0


def test_open_requests_of_the_present_connection_are_counted_and_waits_are_not() -> None:
    kept = Kept()
    kept.begin(1)
    one, two = kept.add(1, b"create"), kept.add(1, b"delete")
    kept.add(1, (0x10100601).to_bytes(4, "little") + b"wait")
    assert kept.open == 2
    kept.answered(one.number, b"answer")
    kept.answered(one.number, b"another")
    kept.forget(one.number)
    assert kept.open == 1
    kept.begin(2)
    assert kept.open == 0
    kept.answered(two.number, b"answer")
    three = kept.add(2, b"create")
    kept.forget(two.number)
    assert kept.open == 1
    kept.forget(three.number)
    assert kept.open == 0


def test_an_answered_request_keeps_its_answer_and_not_its_frame() -> None:
    kept = Kept()
    kept.begin(1)
    descriptors = len(os.listdir("/proc/self/fd"))
    request = kept.add(1, bytes(1 << 20))
    kept.answered(request.number, b"answer")
    kept.answered(request.number, b"answers")
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert 7 < kept.bytes == kept.recent_bytes < 1000
    kept.begin(2)
    assert kept.recent_bytes == 0
    kept.forget(request.number)
    assert kept.bytes == kept.recent_bytes == 0


def test_numbers_of_two_monitors_are_not_the_same() -> None:
    first = Kept().add(1, b"").number
    while Kept().add(1, b"").number == first:
        pass
    assert Kept().add(1, b"").number > first


def test_notes_are_bounded_and_replace_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_NOTES", 2)
    kept = Kept()
    request = kept.add(1, b"")
    before = kept.bytes
    for name, value in ((b"a", b"1"), (b"b", b"2"), (b"c", b"3"), (b"a", b"44"), (b"b", bytes(1 << 20))):
        kept.note(request.number, name, value)
    kept.note(7, b"a", b"to nobody")
    assert request.notes == {b"a": b"44", b"b": b"2"}
    assert kept.bytes == before + 3
    kept.forget(request.number)
    assert kept.bytes == 0


def test_what_is_done_once_is_answered_to_everybody() -> None:
    first, second, third = Asked(), Asked(), Asked()
    once = Once(first)  # type: ignore[arg-type]
    assert once.wanted
    once.ask(second)  # type: ignore[arg-type]
    once.give(1, b"x")
    once.ask(third)  # type: ignore[arg-type]
    assert (first.given, second.given, third.given) == ([], [(1, b"x")], [(1, b"x")])


def test_a_failure_is_final_too() -> None:
    first, second = Asked(), Asked()
    once = Once(first)  # type: ignore[arg-type]
    once.fail(OSError(errno.ECONNREFUSED, "refused"))
    once.ask(second)  # type: ignore[arg-type]
    assert first.given == second.given == [errno.ECONNREFUSED]
