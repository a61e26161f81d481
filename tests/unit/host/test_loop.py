"""Timers of the poll thread, and the pools' threads."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.host.fakes import Clock
from uvmd.host.pools import STACK_BYTES, Own, Pool, Pools
from uvmd.host.timers import Timers


def timers(clock: Clock) -> Timers:
    return Timers(lambda: None, clock)


@given(st.lists(st.integers(0, 100), max_size=30))
def test_timers_run_in_the_order_of_their_time(delays: list[int]) -> None:
    clock, ran = Clock(), []
    queue = timers(clock)
    for delay in delays:
        queue.call_later(delay, lambda delay=delay: ran.append(delay))
    clock.now += 101
    assert queue.run_due() is None
    assert ran == sorted(delays)


def test_the_loop_is_told_how_long_to_sleep() -> None:
    clock, ran = Clock(), []
    queue = timers(clock)
    assert queue.run_due() is None
    queue.call_later(5, lambda: ran.append(1))
    assert queue.run_due() == 5
    clock.now += 5
    assert queue.run_due() is None
    assert ran == [1]


def test_a_cancelled_timer_does_not_run_and_does_not_stay() -> None:
    clock, ran = Clock(), []
    queue = timers(clock)
    handles = [queue.call_later(1000, lambda: ran.append(1)) for _ in range(5000)]
    for handle in handles:
        handle.cancel()
        handle.cancel()
    assert len(queue._heap) < 200
    clock.now += 2000
    assert queue.run_due() is None
    assert ran == []


def test_posted_calls_wake_the_loop_and_run_once() -> None:
    woken, ran = [], []
    queue = Timers(lambda: woken.append(1), Clock())
    queue.post(lambda: ran.append(1))
    assert woken == [1]
    assert queue.run_due() is None
    queue.run_due()
    assert ran == [1]


def test_a_call_that_fails_does_not_keep_the_others_from_running(caplog: pytest.LogCaptureFixture) -> None:
    clock, ran = Clock(), []
    queue = timers(clock)
    queue.call_later(0, lambda: 1 // 0)
    queue.call_later(0, lambda: ran.append(1))
    queue.run_due()
    assert ran == [1]
    assert "ignoring" in caplog.text


def test_a_call_may_set_another_timer() -> None:
    clock = Clock()
    queue = timers(clock)
    queue.call_later(1, lambda: queue.call_later(2, lambda: None) and None)
    clock.now += 1
    assert queue.run_due() == 2


def test_work_is_done_by_no_more_threads_than_the_pool_has() -> None:
    pool, gate, names = Pool("t", 3, idle_s=0.01), threading.Event(), set()
    done = threading.Semaphore(0)

    def work() -> None:
        names.add(threading.current_thread().name)
        gate.wait(5)
        done.release()

    for _ in range(10):
        pool.submit(work)
    assert pool.busy == 10
    gate.set()
    for _ in range(10):
        assert done.acquire(timeout=5)
    assert names <= {"t-1", "t-2", "t-3"}


def test_an_idle_thread_is_used_again_and_then_goes() -> None:
    pool, names = Pool("t", 5, idle_s=0.02), []
    done = threading.Semaphore(0)

    def work() -> None:
        names.append(threading.current_thread())
        done.release()

    for _ in range(3):
        pool.submit(work)
        assert done.acquire(timeout=5)
        # The thread is idle a moment after the work has ended.
        while pool.busy:
            pass
    assert {thread.name for thread in names} == {"t-1"}
    names[0].join(5)
    assert not names[0].is_alive()


def test_a_function_that_raises_is_logged_and_its_thread_lives_on(caplog: pytest.LogCaptureFixture) -> None:
    pool, done = Pool("t", 1, idle_s=0.01), threading.Event()
    pool.submit(lambda: 1 // 0)
    pool.submit(done.set)
    assert done.wait(5)
    assert "ZeroDivisionError" in caplog.text


def test_a_thread_that_cannot_be_had_is_an_error_only_without_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool, ran = Pool("t", 2), []
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError):
        pool.submit(ran.append, 1)
    assert pool.busy == 0


@pytest.mark.parametrize("idle", [True, False])
def test_a_thread_that_cannot_be_had_leaves_the_work_to_the_others(
    monkeypatch: pytest.MonkeyPatch, idle: bool
) -> None:
    pool, started, gate, done = Pool("t", 2), threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        gate.wait(5)

    def refuse(self: threading.Thread) -> None:
        if idle:  # while the thread is being asked for, the other one has finished
            gate.set()
            while pool.busy > 1:
                pass
        raise RuntimeError("can't start new thread")

    pool.submit(work)
    assert started.wait(5)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    pool.submit(done.set)
    gate.set()
    assert done.wait(5)


def test_of_the_idle_threads_the_last_one_goes_on() -> None:
    pool, gates, names = Pool("t", 3), [threading.Event() for _ in range(3)], []
    done = threading.Semaphore(0)

    def work(gate: threading.Event) -> None:
        gate.wait(5)
        names.append(threading.current_thread().name)
        done.release()

    for gate in gates:
        pool.submit(work, gate)
    for left, gate in enumerate(gates, 1):
        gate.set()
        assert done.acquire(timeout=5)
        while pool.busy > 3 - left:
            pass
    for _ in range(2):
        pool.submit(work, gates[0])
        assert done.acquire(timeout=5)
        while pool.busy:
            pass
    assert names[3:] == [names[2]] * 2


def test_what_a_thread_keeps_for_itself_is_one_thing_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    own, done = Own(), list[str]()
    assert not own.keep(done.append, "nobody's")
    own.belong()
    assert own.keep(done.append, "first")
    assert not own.keep(done.append, "second")
    own.serve()
    own.serve()
    assert own.keep(done.append, "third")
    other = threading.Thread(target=lambda: done.append(f"{own.keep(done.append, 'x')}"))
    other.start()
    other.join()
    own.serve()
    assert done == ["first", "False", "third"]
    assert own.keep(int, "no number")
    own.serve()
    assert "a request's thread failed" in caplog.text


def test_a_timer_of_another_threads_turn_wakes_a_loop_that_would_sleep_too_long() -> None:
    woken: list[str] = []
    timers = Timers(lambda: woken.append("woken"), clock=lambda: 100.0)

    def later(delay_s: float) -> int:
        thread = threading.Thread(target=timers.call_later, args=(delay_s, lambda: None))
        thread.start()
        thread.join()
        return len(woken)

    timers.call_later(10, lambda: None)
    assert timers.run_due() == 10
    assert later(20) == 0
    assert later(5) == 1
    assert timers.run_due() == 5
    timers.call_later(1, lambda: None)
    assert len(woken) == 1, "the loop itself is awake"
    for timer in list(timers._heap):
        timer.cancel()
    assert timers.run_due() is None
    assert later(1000) == 2


def test_the_pools_have_small_stacks() -> None:
    before = threading.stack_size()
    try:
        pools = Pools()
        assert threading.stack_size() == STACK_BYTES
        assert {pools.work.busy, pools.control.busy, pools.find.busy} == {0}
    finally:
        threading.stack_size(before)
