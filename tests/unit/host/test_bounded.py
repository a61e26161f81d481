"""The time of a request that nobody can stop."""

from __future__ import annotations

import time

from uvmd.host.bounded import Bounded


def test_what_is_settled_is_nobody_else_s_to_answer() -> None:
    bounded = Bounded(60)
    assert bounded.settle()
    assert not bounded.give_up()
    assert bounded.settle()
    assert not bounded.given_up


def test_what_was_given_up_is_too_late_to_settle() -> None:
    bounded = Bounded(60)
    assert bounded.give_up()
    assert bounded.given_up
    assert not bounded.settle()
    assert not bounded.give_up()


def test_the_time_runs_from_the_beginning() -> None:
    before = time.monotonic()
    assert before + 60 <= Bounded(60).deadline <= time.monotonic() + 60
