"""A request whose thread does not come back is answered all the same, once."""

from __future__ import annotations

import logging

import pytest

from support.fake_host import FakeHost
from support.peer import Peer
from uvmd.bridge import deadlines
from uvmd.bridge.hresult import name_of
from uvmd.bridge.identifiers import Message
from uvmd.errors import Refused
from uvmd.host.bounded import Bounded
from uvmd.host.doing import doing
from uvmd.host.locks import REQUEST_LIMIT_S


class Slow(FakeHost):
    """Its changes take until ``stuck`` returns; the time of each is in ``bounds``."""

    def __init__(self, **options: bool) -> None:
        super().__init__(**options)
        self.bounds: list[Bounded] = []
        self.stuck = lambda: None

    def modify(self, *arguments: object) -> None:
        bounded = doing().bounded
        assert bounded is not None
        bounded.what = "Add Thing path:/run/thing"
        self.bounds.append(bounded)
        self.stuck()


@pytest.fixture
def slow() -> Peer:
    return Peer(Slow()).connect()


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its one element is how late it is."""
    late, clock = [0.0], deadlines.monotonic
    monkeypatch.setattr(deadlines, "monotonic", lambda: clock() + late[0])
    return late


def ask(host: Peer) -> int:
    return host.post_fields(Message.MODIFY, Request={"ResourceType": "Thing"})


def pass_limit(host: Peer, time: list[float]) -> None:
    time[0] += REQUEST_LIMIT_S + 1
    host.fake.timers.pass_s(REQUEST_LIMIT_S)


def test_the_thread_that_comes_back_too_late_finds_the_request_answered(
    slow: Peer, time: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    def stuck() -> None:
        pass_limit(slow, time)
        (answer,) = slow.answers(id_)
        assert name_of(answer["Result"]) == "E_FAIL"
        assert "Add Thing path:/run/thing: not done in time" in answer["ErrorMessage"]
        raise Refused("much later")

    slow.fake.pools.find.held = True
    slow.fake.stuck = stuck
    id_ = ask(slow)
    with caplog.at_level(logging.WARNING):
        slow.fake.pools.find.run_all()
    assert len(slow.answers(id_)) == 1
    assert [record.__dict__.get("error") for record in caplog.records] == ["much later"]
    assert not slow.bridge.busy


def test_a_request_that_never_got_a_thread_is_answered_and_not_begun(slow: Peer, time: list[float]) -> None:
    slow.fake.pools.find.held = True
    id_ = ask(slow)
    pass_limit(slow, time)
    assert len(slow.answers(id_)) == 1
    slow.fake.pools.find.run_all()
    assert slow.fake.bounds == []
    assert len(slow.answers(id_)) == 1


def test_once_its_outcome_is_final_the_thread_answers(slow: Peer, time: list[float]) -> None:
    def stuck() -> None:
        assert slow.fake.bounds[0].settle()
        pass_limit(slow, time)
        assert slow.answers(id_) == []

    slow.fake.pools.find.held = True
    slow.fake.stuck = stuck
    id_ = ask(slow)
    slow.fake.pools.find.run_all()
    assert [answer["Result"] for answer in slow.answers(id_)] == [0]


def test_one_timer_watches_all_and_only_while_there_is_something(slow: Peer, time: list[float]) -> None:
    def delays() -> list[float]:
        return [timer.delay_s for timer in slow.fake.timers.timers]

    before = delays()
    for _ in range(3):
        ask(slow)
    assert delays() == [*before, REQUEST_LIMIT_S]
    slow.fake.pools.find.held = True
    id_ = ask(slow)
    time[0] = REQUEST_LIMIT_S - 1
    slow.fake.timers.pass_s(REQUEST_LIMIT_S)
    assert slow.answers(id_) == []
    assert delays()[-1] < 2, "what is left of the oldest's time"
    pass_limit(slow, time)
    assert len(slow.answers(id_)) == 1
    assert delays() == before


def test_one_at_a_time_the_next_has_its_turn_after_an_answer_that_was_given_up(time: list[float]) -> None:
    host = Peer(Slow(sequential=True)).connect()
    host.fake.pools.find.held = True
    first, second = ask(host), ask(host)
    pass_limit(host, time)
    host.fake.timers.run_posted()
    host.fake.pools.find.run_all()
    assert len(host.answers(first)) == len(host.answers(second)) == 1
    assert [answer["Result"] for answer in host.answers(second)] == [0]
