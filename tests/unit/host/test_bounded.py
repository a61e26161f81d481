"""Work that nobody can stop, and the one who waits for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from uvmd.errors import DeadlineExceeded, Refused
from uvmd.host.bounded import Bounded
from uvmd.observe.steps import Trace, follow, followed, step, steps_of

Settle = Callable[[], bool]


def test_what_the_work_raises_is_raised_to_the_one_who_waits() -> None:
    def work(settle: Settle) -> None:
        raise Refused("no")

    call = Bounded(work, "work")
    call.run()
    with pytest.raises(Refused, match="no"):
        call.wait(0)


def test_the_steps_of_the_work_are_the_request_s_on_whatever_thread() -> None:
    def work(settle: Settle) -> None:
        with step("find"):
            pass

    trace = Trace(0)
    follow(trace)
    call = Bounded(work, "work")
    follow(None)
    call.run()
    call.wait(0)
    assert followed() is None
    assert [(one.name, one.parent) for one in steps_of(trace.take(), 1 << 62)] == [
        ("queue", -1),
        ("find", -1),
    ]


def test_work_that_nobody_waits_for_any_more_does_not_begin() -> None:
    call = Bounded(lambda settle: pytest.fail("begun"), "work")
    with pytest.raises(DeadlineExceeded, match="work: not done in time"):
        call.wait(0)
    call.run()


def test_work_in_progress_is_told_that_nobody_waits() -> None:
    told: list[bool] = []

    def work(settle: Settle) -> None:
        with pytest.raises(DeadlineExceeded):
            call.wait(0)
        told.append(settle())

    call = Bounded(work, "work")
    call.run()
    assert told == [False]


def test_a_late_failure_is_logged_because_nobody_hears_of_it(caplog: pytest.LogCaptureFixture) -> None:
    def work(settle: Settle) -> None:
        with pytest.raises(DeadlineExceeded):
            call.wait(0)
        raise Refused("too late")

    call = Bounded(work, "work")
    call.run()
    assert caplog.records[0].__dict__["error"] == "too late"


def test_once_settled_the_outcome_is_waited_for() -> None:
    def work(settle: Settle) -> None:
        assert settle()

    call = Bounded(work, "work")
    call.run()
    call.wait(0)
