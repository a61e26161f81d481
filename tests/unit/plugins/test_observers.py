"""Observers hear of things and cannot hold anybody up."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from uvmd.plugin_manager.observers import Observer, Observers


def test_events_are_told_in_order_and_stop_waits_for_those_that_are_queued() -> None:
    heard: list[int] = []
    observer = Observer("a", lambda event: heard.append(event))
    observers = Observers([observer], "event")
    for number in range(100):
        observers.tell(number)
    observers.stop(5)
    assert heard == list(range(100))
    observers.tell(100)
    assert heard == list(range(100))


def test_several_that_belong_together_are_made_anew_on_each_observer_s_thread() -> None:
    class Events:
        def __iter__(self) -> Iterator[tuple[str, int]]:
            yield from ((threading.current_thread().name, number) for number in range(2))

    heard: list[tuple[str, tuple[str, int]]] = []
    a = Observer("a", lambda event: heard.append(("observer-a", event)))
    b = Observer("b", lambda event: heard.append(("observer-b", event)))
    observers = Observers([a, b], "event")
    observers.tell_all(Events())
    observers.stop(5)
    assert sorted(heard) == [
        (name, (name, number)) for name in ("observer-a", "observer-b") for number in (0, 1)
    ]


def test_what_follows_close_behind_is_told_together_and_an_end_waits_for_no_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("uvmd.plugin_manager.observers.REST_S", 60.0)
    first, heard = threading.Event(), []

    def hear(event: int) -> None:
        heard.append(event)
        first.set()

    observers = Observers([Observer("a", hear)], "event")
    observers.tell(0)
    assert first.wait(5)
    for number in range(1, 100):
        observers.tell(number)
    assert heard == [0]
    observers.stop(5)
    assert heard == list(range(100))


def test_a_slow_observer_loses_events_and_they_are_counted() -> None:
    busy, go_on, heard = threading.Event(), threading.Event(), []

    def slow(event: int) -> None:
        busy.set()
        go_on.wait(5)
        heard.append(event)

    observer = Observer("slow", slow, limit=2)
    observers = Observers([observer], "event")
    observers.tell(0)
    assert busy.wait(5)
    for number in range(1, 6):
        observers.tell(number)
    assert observers.dropped() == {"slow": 3}
    go_on.set()
    observers.stop(5)
    assert heard == [0, 1, 2]


def test_an_observer_that_raises_is_logged_once_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[int] = []

    def sometimes(event: int) -> None:
        if event < 3:
            raise ValueError("SECRET")
        heard.append(event)

    observer = Observer("a", sometimes)
    observer.tell("event", range(2))
    observer.tell("event", range(2, 5))
    observer.stop(5)
    assert heard == [3, 4]
    assert len(caplog.records) == 1
    assert "SECRET" not in caplog.text


def test_one_observer_does_not_wait_for_another() -> None:
    go_on, heard = threading.Event(), threading.Event()
    stuck = Observer("stuck", lambda event: go_on.wait(5))
    observers = Observers([stuck, Observer("quick", lambda event: heard.set())], "event")
    observers.tell(1)
    assert heard.wait(5)
    go_on.set()
    observers.stop(5)


def test_nobody_listening_is_falsy_and_costs_no_thread() -> None:
    before = threading.active_count()
    nobody = Observers([], "event")
    nobody.tell(1)
    assert not nobody
    Observer("idle", print).stop(0)
    assert threading.active_count() == before


def test_without_a_thread_to_be_had_the_event_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    observer = Observer("a", print)
    observer.tell("event", [1])
    assert observer.dropped == 1
