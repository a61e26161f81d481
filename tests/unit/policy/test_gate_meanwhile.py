"""What is done while the policy is asked: once, whatever the enforcer, and it fails after a yes alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import is_
from typing import Any

import pytest

from support.gates import Panic, gate_with
from uvmd.api.policy import Decision, Enforcer
from uvmd.api.resources import Question
from uvmd.api.testing import POLICY
from uvmd.errors import Failed, PolicyDenied, Refused
from uvmd.policy.gate import Gate
from uvmd.policy.selection import PolicySettings

QUESTION = Question("mount_overlay", {"target": "/a"}, "overlay: ")


class FarAway(Enforcer):
    """Does what there is to do between a question and its answer, as often as it is told."""

    text = POLICY

    def __init__(self, times: int = 1, answer: object = True) -> None:
        self.events: list[str] = []
        self._times, self._answer = times, answer

    def decide(self, point: str, input: Mapping[str, Any]) -> Decision:
        return Decision(True)

    def decide_all(
        self, questions: Sequence[tuple[str, Mapping[str, Any]]], meanwhile: Callable[[], None] = lambda: None
    ) -> Sequence[Decision]:
        self.events.append("asked")
        for _ in range(self._times):
            meanwhile()
        self.events.append("answered")
        if isinstance(self._answer, BaseException):
            raise self._answer
        return [Decision(self._answer is True, reason="never")] * len(questions)


class Memory:
    """Tells of what comes to it."""

    def __init__(self, events: list[str]) -> None:
        self._events = events
        self._ready: tuple[Any, ...] = ()

    def recall(self, *asked: Any) -> None:
        self._events.append("recall")

    def get_ready(self, *asked: Any) -> None:
        self._ready = asked
        self._events.append("ready")

    def remember(self, *asked: Any, decisions: Sequence[Decision]) -> None:
        assert not self._ready or all(map(is_, asked, self._ready))
        self._events.append("remember")


def gate_of(enforcer: Enforcer, memory: Memory | None = None) -> Gate:
    gate = Gate(enforcers={"far": lambda text: enforcer}, selectable=("far",), memory=memory)
    gate.set_policy(PolicySettings("far", POLICY))
    return gate


@pytest.mark.parametrize("times", [0, 1, 2])
def test_it_is_done_once_while_the_enforcer_waits_or_else_after_it(times: int) -> None:
    enforcer = FarAway(times)
    (decision,) = gate_of(enforcer).ask_all(QUESTION, meanwhile=lambda: enforcer.events.append("done"))
    assert decision.allowed
    assert enforcer.events == (["asked", "done", "answered"] if times else ["asked", "answered", "done"])


def test_what_keeps_the_answers_gets_ready_while_the_enforcer_waits() -> None:
    enforcer = FarAway()
    gate = gate_of(enforcer, Memory(enforcer.events))
    gate.ask_all(QUESTION, QUESTION, meanwhile=lambda: enforcer.events.append("done"))
    assert enforcer.events == ["recall", "asked", "done", "ready", "answered", "remember"]


def test_an_enforcer_that_knows_nothing_of_it_is_asked_first() -> None:
    gate, enforcer = gate_with()
    enforcer.asked.clear()
    seen = []
    gate.ask_all(QUESTION, meanwhile=lambda: seen.append(enforcer.points))
    assert seen == [["mount_overlay"]]


@pytest.mark.parametrize("times", [0, 1])
@pytest.mark.parametrize("error", [Failed("no space"), Refused("taken"), Panic()], ids=repr)
def test_its_error_comes_after_a_yes_as_it_is(times: int, error: BaseException) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        gate_of(FarAway(times)).ask_all(QUESTION, meanwhile=fail)
    assert raised.value is error


@pytest.mark.parametrize("answer", [False, TimeoutError(), Panic(), ValueError("x")])
@pytest.mark.parametrize("times", [0, 1])
def test_its_error_is_not_to_be_seen_beside_a_no(answer: object, times: int) -> None:
    def fail() -> None:
        raise Failed("a host must not learn of it")

    with pytest.raises(PolicyDenied, match=r"^overlay: ") as raised:
        gate_of(FarAway(times, answer)).ask_all(QUESTION, meanwhile=fail)
    assert "learn" not in str(raised.value)


def test_it_is_not_done_behind_a_closed_door() -> None:
    enforcer = FarAway()
    gate = gate_of(enforcer)
    gate.close_door("doubt")
    with pytest.raises(PolicyDenied, match="doubt"):
        gate.ask_all(QUESTION, meanwhile=lambda: enforcer.events.append("done"))
    assert enforcer.events == []
