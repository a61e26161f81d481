"""Notices are looked at, one at a time, until they are removed or their group is gone."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator

import pytest

from uvmd.linux.memory_events import Notice
from uvmd.linux.notices import Notices


class Bench:
    """Notices without their thread; a step is taken when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.notices = Notices(clock=lambda: self.now)
        # Stands for the thread: what is added does not start one.
        self.notices._thread = object()  # type: ignore[assignment]
        self.looks: list[tuple[str, bool]] = []
        self.made: list[Notice] = []

    def notice(self) -> Notice:
        made = Notice(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK), select.EPOLLIN)
        self.made.append(made)
        return made

    def look(self, name: str, answer: float | Exception | None = None) -> object:
        def look(noticed: bool) -> float | None:
            self.looks.append((name, noticed))
            if isinstance(answer, Exception):
                raise answer
            return answer

        return look

    def step(self) -> list[tuple[str, bool]]:
        self.looks.clear()
        self.notices.step(0)
        return list(self.looks)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    for notice in made.made:
        made.notices.remove(notice)
        notice.close()
    made.notices._poller.close()
    os.close(made.notices._wake)


def ring(notice: Notice) -> None:
    os.eventfd_write(notice.fd, 1)


def test_a_notice_is_looked_at_once(bench: Bench) -> None:
    one, two = bench.notice(), bench.notice()
    bench.notices.add(one, bench.look("one"))  # type: ignore[arg-type]
    bench.notices.add(two, bench.look("two"))  # type: ignore[arg-type]
    assert bench.step() == []
    ring(two)
    assert bench.step() == [("two", True)]
    assert bench.step() == []


def test_a_look_may_ask_to_look_again(bench: Bench) -> None:
    notice = bench.notice()
    bench.notices.add(notice, bench.look("x", 5.0), at_once=True)  # type: ignore[arg-type]
    assert bench.step() == [("x", False)]
    assert bench.step() == []
    bench.now += 5
    assert bench.step() == [("x", False)]
    ring(notice)
    assert bench.step() == [("x", True)]


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV])
def test_a_group_that_is_gone_is_not_listened_to_any_more(bench: Bench, number: int) -> None:
    notice = bench.notice()
    bench.notices.add(notice, bench.look("x", OSError(number, "gone")))  # type: ignore[arg-type]
    ring(notice)
    assert bench.step() == [("x", True)]
    assert notice.closed


def test_what_was_removed_is_closed_and_never_looked_at(bench: Bench) -> None:
    notice = bench.notice()
    bench.notices.add(notice, bench.look("x"))  # type: ignore[arg-type]
    ring(notice)
    bench.notices.remove(notice)
    bench.notices.remove(notice)
    assert notice.closed
    assert bench.step() == []


def test_the_number_of_a_closed_descriptor_may_come_again(bench: Bench) -> None:
    old = bench.notice()
    bench.notices.add(old, bench.look("old"))  # type: ignore[arg-type]
    bench.notices.remove(old)
    new = bench.notice()
    assert new.fd == old.fd
    bench.notices.add(new, bench.look("new"))  # type: ignore[arg-type]
    bench.notices.remove(old)
    ring(new)
    assert bench.step() == [("new", True)]
