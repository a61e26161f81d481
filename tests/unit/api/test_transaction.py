"""A change happens whole or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.api.transaction import RollbackFailed, Undo, transaction


@given(steps=st.integers(0, 6), fails_at=st.integers(0, 7))
def test_exactly_the_steps_that_were_done_are_undone_last_first(steps: int, fails_at: int) -> None:
    done: list[int] = []
    undone: list[int] = []
    try:
        with transaction() as undo:
            for step in range(steps):
                if step == fails_at:
                    raise ValueError("boom")
                done.append(step)
                undo.callback(undone.append, step)
    except ValueError:
        assert undone == done[::-1]
    else:
        assert undone == []


def test_every_opposite_is_tried_and_the_first_error_is_the_answer() -> None:
    reports: list[str] = []
    undone: list[str] = []

    def fail() -> None:
        raise OSError(16, "busy")

    with pytest.raises(ValueError, match="original"), transaction(reports.append) as undo:
        undo.callback(undone.append, "first")
        undo.callback(fail, step="umount /a")
        undo.callback(undone.append, "third")
        raise ValueError("original")
    assert undone == ["third", "first"]
    assert reports == ["umount /a: [Errno 16] busy"]


def test_a_failure_past_the_point_of_no_return_is_a_failed_rollback() -> None:
    reports: list[str] = []
    with pytest.raises(ValueError, match="boom"), transaction(reports.append) as undo:
        assert undo.irreversible is None
        undo.point_of_no_return("umount /a")
        assert undo.irreversible == "umount /a"
        raise ValueError("boom")
    assert reports == ["umount /a: cannot be undone"]


def test_a_success_past_the_point_of_no_return_reports_nothing() -> None:
    reports: list[str] = []
    with transaction(reports.append) as undo:
        undo.point_of_no_return("umount /a")
    assert reports == []


def test_an_undo_that_is_dropped_undoes_nothing() -> None:
    undone: list[int] = []
    undo = Undo()
    undo.callback(undone.append, 1)
    del undo
    assert undone == []
    assert not hasattr(Undo, "enter_context")


def test_a_failed_rollback_carries_each_step_and_its_error() -> None:
    undo, error = Undo(), OSError("a")

    def fail() -> None:
        raise error

    undo.callback(fail, step="one")
    undo.callback(fail)
    with pytest.raises(RollbackFailed) as caught:
        undo.close()
    assert [step for step, _ in caught.value.failures][1] == "one"
    assert all(what is error for _, what in caught.value.failures)
