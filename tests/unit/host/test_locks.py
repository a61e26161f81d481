"""Who may change the VM at the same time as whom."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uvmd.errors import DeadlineExceeded
from uvmd.host.locks import ChangeLock
from uvmd.observe.steps import Trace, follow, steps_of

SOON = 5.0


class Runner(threading.Thread):
    """Holds the lock in a thread of its own until it is told to let go."""

    def __init__(self, lock: ChangeLock, keys: tuple[str, ...], exclusive: bool, who: str) -> None:
        super().__init__(name=who, daemon=True)
        self.lock, self.keys, self.exclusive = lock, keys, exclusive
        self.inside, self.leave = threading.Event(), threading.Event()
        self.start()

    def run(self) -> None:
        with self.lock.hold(self.keys, self.exclusive, who=self.name):
            self.inside.set()
            self.leave.wait(SOON)

    def finish(self) -> None:
        self.leave.set()
        self.join(SOON)
        assert not self.is_alive()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.0005)


def waiting(lock: ChangeLock) -> list[str]:
    return [line.who for line in lock.table() if line.waiting]


def test_changes_of_different_things_run_side_by_side() -> None:
    lock = ChangeLock()
    first, second = Runner(lock, ("path:/a",), False, "a"), Runner(lock, ("path:/b",), False, "b")
    assert first.inside.wait(SOON)
    assert second.inside.wait(SOON)
    first.finish()
    second.finish()
    assert lock.table() == ()


def test_changes_of_the_same_thing_come_one_after_the_other() -> None:
    lock = ChangeLock()
    first = Runner(lock, ("path:/a", "lun:0"), False, "first")
    assert first.inside.wait(SOON)
    second = Runner(lock, ("lun:0", "path:/z"), False, "second")
    until(lambda: waiting(lock) == ["second"])
    first.finish()
    assert second.inside.wait(SOON)
    second.finish()


def test_waiting_for_others_is_a_step_of_the_request_and_not_waiting_is_none() -> None:
    lock, trace = ChangeLock(), Trace(0)
    follow(trace)
    try:
        with lock.hold(("a",)):
            pass
        holder = Runner(lock, ("a",), False, "holder")
        assert holder.inside.wait(SOON)
        with pytest.raises(DeadlineExceeded), lock.hold(("a",), deadline=0):
            pass
        holder.finish()
    finally:
        follow(None)
    assert [one.name for one in steps_of(trace.take(), 1 << 62)] == ["lock"]


def test_an_exclusive_change_waits_for_all_and_keeps_out_all() -> None:
    lock = ChangeLock()
    shared = Runner(lock, ("a",), False, "shared")
    assert shared.inside.wait(SOON)
    whole = Runner(lock, (), True, "whole")
    until(lambda: waiting(lock) == ["whole"])
    late = Runner(lock, ("b",), False, "late")
    until(lambda: waiting(lock) == ["whole", "late"])
    assert not late.inside.is_set(), "a later change must not overtake and starve an exclusive one"
    shared.finish()
    assert whole.inside.wait(SOON)
    assert waiting(lock) == ["late"]
    whole.finish()
    assert late.inside.wait(SOON)
    late.finish()


def test_a_change_that_nobody_ahead_excludes_does_not_wait_behind_one_that_does() -> None:
    lock = ChangeLock()
    first = Runner(lock, ("a",), False, "first")
    assert first.inside.wait(SOON)
    blocked = Runner(lock, ("a",), False, "blocked")
    until(lambda: waiting(lock) == ["blocked"])
    free = Runner(lock, ("b",), False, "free")
    assert free.inside.wait(SOON)
    for runner in (free, first, blocked):
        runner.finish()


def test_a_deadline_names_the_one_that_holds() -> None:
    lock = ChangeLock()
    stuck = Runner(lock, ("path:/a",), False, "Modify MappedDirectory /a")
    assert stuck.inside.wait(SOON)
    with (
        pytest.raises(DeadlineExceeded, match="Modify MappedDirectory /a"),
        lock.hold(["path:/a"], deadline=time.monotonic()),
    ):
        pytest.fail("the lock was held")
    assert waiting(lock) == []
    stuck.finish()


def test_those_behind_a_change_that_gave_up_are_let_in() -> None:
    lock = ChangeLock()
    shared = Runner(lock, ("a",), False, "shared")
    assert shared.inside.wait(SOON)
    gave_up: list[BaseException] = []

    def whole() -> None:
        try:
            with lock.hold(exclusive=True, deadline=time.monotonic() + 0.05, who="whole"):
                pass
        except DeadlineExceeded as error:
            gave_up.append(error)

    impatient = threading.Thread(target=whole)
    impatient.start()
    until(lambda: waiting(lock) == ["whole"])
    late = Runner(lock, ("b",), False, "late")
    impatient.join(SOON)
    assert gave_up
    assert late.inside.wait(SOON)
    late.finish()
    shared.finish()


def test_a_policy_that_came_into_force_while_waiting_makes_the_change_exclusive() -> None:
    lock = ChangeLock()
    answers = iter([False, True])
    with lock.hold(["a"], exclusive=lambda: next(answers), who="create"):
        assert [(line.who, line.exclusive) for line in lock.table()] == [("create", True)]
    assert lock.table() == ()


def test_a_change_inside_a_change_is_a_mistake_and_says_so() -> None:
    lock = ChangeLock()
    with lock.hold(["a"], who="outer"), pytest.raises(RuntimeError, match="inner"):
        with lock.hold(["b"], who="inner"):
            pass
    assert lock.table() == ()


def test_an_error_inside_releases_the_lock() -> None:
    lock = ChangeLock()
    with pytest.raises(ValueError, match="boom"), lock.hold(["a"]):
        raise ValueError("boom")
    assert lock.table() == ()


requests = st.lists(
    st.tuples(st.sets(st.sampled_from("abc"), max_size=2), st.booleans()), min_size=1, max_size=6
)


@settings(max_examples=25, deadline=None)
@given(requests)
def test_whatever_arrives_nobody_is_inside_with_someone_it_excludes(
    wanted: list[tuple[set[str], bool]],
) -> None:
    lock, mutex = ChangeLock(), threading.Lock()
    inside: list[tuple[frozenset[str], bool]] = []
    clashes: list[object] = []

    def change(keys: frozenset[str], exclusive: bool) -> None:
        with lock.hold(keys, exclusive):
            with mutex:
                clashes.extend(
                    other for other in inside if exclusive or other[1] or not keys.isdisjoint(other[0])
                )
                inside.append((keys, exclusive))
            with mutex:
                inside.remove((keys, exclusive))

    threads = [threading.Thread(target=change, args=(frozenset(keys), whole)) for keys, whole in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert not clashes
    assert lock.table() == ()
