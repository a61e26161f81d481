"""What the gate keeps of a request's answers, and several questions of one request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from support.gates import HELLO, READERS, Panic, gate_with
from uvmd.api.envelopes import Fragment
from uvmd.api.policy import Decision
from uvmd.api.resources import Question
from uvmd.errors import PolicyDenied


class Memory:
    """Answers kept beside one request."""

    def __init__(self) -> None:
        self.kept: list[tuple[Any, Sequence[Decision]]] = []

    def recall(self, *asked: Any) -> Sequence[Decision] | None:
        return next((decisions for known, decisions in self.kept if known == asked), None)

    def get_ready(self, *asked: Any) -> None:
        pass

    def remember(self, *asked: Any, decisions: Sequence[Decision]) -> None:
        self.kept.append((asked, decisions))


def test_a_question_that_was_answered_for_the_request_is_not_asked_again() -> None:
    memory = Memory()
    gate, enforcer = gate_with(Decision(True, stdio=False), memory=memory)
    before = len(enforcer.asked)
    answers = [gate.ask("create_container", {"containerID": "a"}) for _ in range(2)]
    assert [one.stdio for one in answers] == [False, False]
    assert len(enforcer.asked) == before + 1
    gate.ask("create_container", {"containerID": "b"})
    assert len(enforcer.asked) == before + 2


def test_a_no_is_not_kept() -> None:
    memory = Memory()
    gate, _ = gate_with(Decision(False, reason="never"), memory=memory)
    for _ in range(2):
        with pytest.raises(PolicyDenied, match="never"):
            gate.ask("create_container", {"containerID": "a"})
    assert "create_container" not in [point for asked, _ in memory.kept for point, _ in asked]


def test_a_closed_door_is_closed_to_what_was_answered_before() -> None:
    gate, _ = gate_with(memory=Memory())
    gate.ask("create_container", {"containerID": "a"})
    gate.close_door("doubt")
    with pytest.raises(PolicyDenied, match="doubt"):
        gate.ask("create_container", {"containerID": "a"})


def test_a_fragment_is_loaded_once_for_a_request() -> None:
    gate, enforcer = gate_with(memory=Memory(), envelope_readers=READERS)
    for _ in range(2):
        gate.load_fragment(HELLO, "")
    assert enforcer.fragments == [Fragment("did:x", "feed", "hello")]


# Several questions of one request

PAIR = Question("scratch_mount", {"target": "/a"}, "scratch: "), Question("mount_overlay", {}, "overlay: ")


def test_questions_together_are_answered_and_kept_in_their_order() -> None:
    memory = Memory()
    gate, enforcer = gate_with(memory=memory)
    before = len(enforcer.asked)
    for _ in range(2):
        assert [one.allowed for one in gate.ask_all(*PAIR)] == [True, True]
    assert enforcer.points[before:] == ["scratch_mount", "mount_overlay"]
    assert [point for point, _ in memory.kept[-1][0]] == ["scratch_mount", "mount_overlay"]


@pytest.mark.parametrize(("denied", "asked"), [(0, 1), (1, 2)])
def test_the_first_no_ends_it_in_its_own_words_and_nothing_is_kept(denied: int, asked: int) -> None:
    memory = Memory()
    gate, enforcer = gate_with(memory=memory)
    enforcer.script[PAIR[denied].point] = Decision(False, reason="never")
    before, kept = len(enforcer.asked), len(memory.kept)
    with pytest.raises(PolicyDenied, match=f"^{PAIR[denied].refusal}never$"):
        gate.ask_all(*PAIR)
    assert len(enforcer.asked) == before + asked
    assert len(memory.kept) == kept


@pytest.mark.parametrize("given", [[], [Decision(True)], [Decision(True), None], [Decision(True), True]])
def test_a_question_without_an_answer_is_denied(given: Any) -> None:
    gate, enforcer = gate_with()
    enforcer.decide_all = lambda *_: given  # type: ignore[method-assign]
    with pytest.raises(PolicyDenied, match=r"^(scratch|overlay): the policy answered with"):
        gate.ask_all(*PAIR)


def test_an_enforcer_that_breaks_over_several_questions_is_a_no() -> None:
    gate, enforcer = gate_with()
    enforcer.script["scratch_mount"] = Panic()
    with pytest.raises(PolicyDenied, match=r"^scratch: the policy could not be evaluated: Panic$"):
        gate.ask_all(*PAIR)
