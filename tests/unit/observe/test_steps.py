"""Steps are noted for the request that a thread serves, and only while somebody listens."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.observe.steps import MOST_STEPS, UNFINISHED, Step, Trace, follow, followed, step, steps_of

LATE = 1 << 62


@pytest.fixture
def trace() -> Iterator[Trace]:
    made = Trace(0)
    follow(made)
    yield made
    follow(None)


def taken(trace: Trace, latest_ns: int = LATE) -> list[Step]:
    return list(steps_of(trace.take(), latest_ns))


def test_where_nobody_listens_a_step_is_always_the_same_nothing() -> None:
    assert followed() is None
    assert step("policy", "create_container") is step("lock")


def test_steps_know_what_they_are_a_part_of(trace: Trace) -> None:
    with step("plan"):
        with step("policy", "create_container"):
            pass
        with step("read"):
            pass
    with step("answer"):
        pass
    found = taken(trace)
    assert [(one.name, one.parent) for one in found] == [
        ("plan", -1),
        ("policy create_container", 0),
        ("read", 0),
        ("answer", -1),
    ]
    plan, policy, read, answer = found
    assert plan.began_ns <= policy.began_ns <= policy.ended_ns <= read.began_ns
    assert read.ended_ns <= plan.ended_ns <= answer.began_ns


def test_a_step_that_raises_has_the_type_of_the_error_and_not_its_text(trace: Trace) -> None:
    with pytest.raises(ValueError, match="SECRET"), step("decode", "body"):
        raise ValueError("SECRET")
    (found,) = taken(trace)
    assert found.error == "ValueError"


def test_what_was_under_way_when_the_answer_went_is_unfinished(trace: Trace) -> None:
    with step("apply"):
        with step("monitor", "run"):
            now = trace.take()
        # An abandoned thread goes on, and what it does then is nobody's.
        with step("later"):
            pass
    latest = now[0][3] + 5
    assert [(one.name, one.error, one.ended_ns <= latest) for one in steps_of(now, latest)] == [
        ("apply", UNFINISHED, True),
        *([("monitor run", UNFINISHED, True)] if now[1][3] <= latest else []),
    ]
    assert [one.name for one in taken(trace)] == ["later"]


def test_more_steps_than_are_kept_are_part_of_what_they_are_in(trace: Trace) -> None:
    with step("outer"):
        for _ in range(MOST_STEPS + 10):
            with step("inner"):
                pass
    with step("after"):
        pass
    found = taken(trace)
    assert len(found) == MOST_STEPS
    assert {one.parent for one in found[1:]} == {0}


def test_another_thread_has_no_trace_until_it_follows(trace: Trace) -> None:
    def work() -> None:
        with step("not noted"):
            follow(trace)
        with step("noted"):
            pass

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert [one.name for one in taken(trace)] == ["noted"]


def test_a_step_that_is_over_can_be_noted_afterwards(trace: Trace) -> None:
    with step("serve"):
        trace.note("queue", 1)
    serve, queue = taken(trace)
    assert (queue.name, queue.parent, queue.began_ns) == ("queue", 0, 1)
    assert serve.began_ns <= queue.ended_ns <= serve.ended_ns


@given(st.recursive(st.just([]), lambda inner: st.lists(inner, max_size=4), max_leaves=30))
def test_whatever_the_nesting_a_parent_comes_first_and_lasts_as_long(shape: list[object]) -> None:
    made = Trace(0)

    def open_all(shapes: list[object]) -> None:
        for below in shapes:
            with step("x"):
                open_all(below)  # type: ignore[arg-type]

    follow(made)
    try:
        open_all(shape)
    finally:
        follow(None)
    found = taken(made)
    for number, one in enumerate(found):
        assert one.parent < number
        if one.parent >= 0:
            parent = found[one.parent]
            assert parent.began_ns <= one.began_ns <= one.ended_ns <= parent.ended_ns
