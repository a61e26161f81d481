"""The event loop."""

from __future__ import annotations

import os
import socket

from support.monitor_parts import Parts
from uvmd.monitor.loop import EDGE, IN, OUT, Loop


def test_timers_fire_in_order_and_not_when_cancelled(parts: Parts) -> None:
    fired: list[int] = []
    for number in (3, 1, 2):
        parts.loop.call_later(number / 1000, lambda number=number: fired.append(number))  # type: ignore[misc]
    parts.loop.call_later(0.0015, lambda: fired.append(99)).cancel()
    parts.run_until(lambda: len(fired) == 3)
    assert fired == [1, 2, 3]


def test_timers_that_were_not_needed_do_not_pile_up(parts: Parts) -> None:
    fired: list[int] = []
    parts.loop.call_later(0.001, lambda: fired.append(1))
    for _ in range(10_000):
        parts.loop.call_later(60, lambda: fired.append(2)).cancel()
    assert len(parts.loop._timers) < 600
    parts.run_until(lambda: fired)
    assert fired == [1]


def test_a_timer_far_away_does_not_break_the_waiting(parts: Parts) -> None:
    parts.loop.call_later(1e9, lambda: None)
    assert 0 < parts.loop._timeout() <= 3600


def test_a_ready_descriptor_calls_its_handler(parts: Parts) -> None:
    read_end, write_end = os.pipe()
    seen: list[int] = []
    parts.loop.watch(read_end, IN, lambda events: seen.append(events) or parts.loop.unwatch(read_end))  # type: ignore[func-returns-value]
    os.write(write_end, b"x")
    parts.run_until(lambda: seen)
    assert seen == [IN]
    os.close(read_end)
    os.close(write_end)


def test_a_handler_that_closes_another_descriptor_is_not_betrayed(parts: Parts) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    called: list[int] = []

    def handler(me: int) -> None:
        called.append(me)
        for ours, _ in pairs:
            parts.loop.unwatch(ours.fileno())

    for number, (ours, theirs) in enumerate(pairs):
        parts.loop.watch(ours.fileno(), IN, lambda _, number=number: handler(number))  # type: ignore[misc]
        theirs.send(b"x")
    parts.run_until(lambda: called)
    assert len(called) == 1
    for pair in pairs:
        for sock in pair:
            sock.close()


def test_an_event_is_not_for_whoever_has_the_descriptors_number_next(parts: Parts) -> None:
    pairs = [socket.socketpair() for _ in range(3)]
    called: list[str] = []
    numbers: list[int] = []

    def handler(me: int) -> None:
        called.append("first")
        for ours, _ in pairs[:2]:
            parts.loop.unwatch(ours.fileno())
        number = pairs[1 - me][0].detach()
        new, other = pairs[2]
        os.dup2(new.fileno(), number)
        parts.loop.watch(number, IN, lambda _: called.append("second") or parts.loop.unwatch(number))  # type: ignore[func-returns-value]
        parts.loop.soon(lambda: called.append("next round") or other.send(b"x"))  # type: ignore[func-returns-value]
        numbers.append(number)

    for number, (ours, theirs) in enumerate(pairs[:2]):
        parts.loop.watch(ours.fileno(), IN, lambda _, number=number: handler(number))  # type: ignore[misc]
        theirs.send(b"x")
    parts.run_until(lambda: "second" in called)
    assert called == ["first", "next round", "second"]
    os.close(numbers[0])
    for pair in pairs:
        for sock in pair:
            sock.close()


def test_a_file_that_epoll_refuses_is_ready_once(parts: Parts) -> None:
    with open(__file__) as file:
        seen: list[int] = []
        parts.loop.watch(file.fileno(), IN | EDGE, seen.append)
        parts.run_until(lambda: seen)
        assert seen == [IN]
        parts.loop.unwatch(file.fileno())


def test_what_is_called_soon_may_call_soon_again(parts: Parts) -> None:
    count: list[int] = []

    def again() -> None:
        count.append(1)
        if len(count) < 5:
            parts.loop.soon(again)

    parts.loop.soon(again)
    parts.run_until(lambda: len(count) == 5)


def test_a_failing_handler_is_reported_and_the_others_go_on() -> None:
    failures: list[BaseException] = []
    loop = Loop(failures.append)
    ours, theirs = socket.socketpair()

    def fail(*_: object) -> None:
        loop.unwatch(ours.fileno())
        raise ValueError("a bug")

    loop.watch(ours.fileno(), OUT, fail)
    loop.soon(lambda: fail())
    loop.call_later(0, fail)
    loop.call_later(0.01, loop.stop)
    loop.run()
    assert [str(error) for error in failures] == ["a bug"] * 3
    ours.close()
    theirs.close()


def test_unknown_descriptors_can_be_unwatched_and_changed(parts: Parts) -> None:
    parts.loop.unwatch(9999)
    parts.loop.change(9999, IN)
