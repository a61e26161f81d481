"""Answers of the policy that outlive the daemon."""

from __future__ import annotations

from uvmd.api.policy import Decision
from uvmd.host.doing import Doing, doing, working_for
from uvmd.host.remembered import Remembered

INPUT = {"argList": ("a", "b"), "set": {"y", "x"}, "nested": {"k": 1}}
YES = Decision(True, env=("A=1",), capabilities={"bounding": ["CAP_KILL"]}, stdio=False, extra={"x": 1})


def test_an_answer_is_found_again_for_the_same_question_of_the_same_request() -> None:
    notes: dict[str, bytes] = {}
    memory = Remembered(notes.__setitem__)
    with working_for(Doing(7)):
        memory.remember(("create_container", INPUT), decisions=[YES])
        assert memory.recall(("create_container", INPUT)) is None, "nobody was here before"
    again = Doing(7, again=True, notes=notes)
    with working_for(again):
        assert memory.recall(("mount_device", INPUT)) is None
        assert memory.recall(("create_container", {**INPUT, "more": 1})) is None
        assert not again.recalled
        (found,) = memory.recall(("create_container", {**INPUT, "set": {"x", "y"}})) or ()
        assert again.recalled
    assert (found.allowed, found.stdio, found.extra) == (True, False, {"x": 1})
    assert (list(found.env or ()), found.capabilities) == (["A=1"], {"bounding": ["CAP_KILL"]})


def test_what_nobody_asked_for_is_not_kept() -> None:
    notes: dict[str, bytes] = {}
    Remembered(notes.__setitem__).remember(("dump_stacks", {}), decisions=[YES])
    assert notes == {}
    assert not doing().number


def test_answers_that_were_given_together_are_found_together_and_not_by_themselves() -> None:
    notes: dict[str, bytes] = {}
    memory = Remembered(notes.__setitem__)
    pair = ("scratch_mount", {"target": "/a"}), ("mount_overlay", {"target": "/b"})
    with working_for(Doing(7)):
        memory.remember(*pair, decisions=[YES, Decision(True)])
    assert len(notes) == 1
    with working_for(Doing(7, again=True, notes=notes)):
        assert [one.stdio for one in memory.recall(*pair) or ()] == [False, True]
        assert memory.recall(*reversed(pair)) is None
        assert [memory.recall(one) for one in pair] == [None, None]


def test_answers_that_an_earlier_release_was_given_one_by_one_are_found_if_all_are_there() -> None:
    notes: dict[str, bytes] = {}
    memory = Remembered(notes.__setitem__)
    pair = ("scratch_mount", {"target": "/a"}), ("mount_overlay", {"target": "/b"})
    for known in range(2):
        with working_for(Doing(7, again=True, notes=notes)):
            assert memory.recall(*pair) is None
        with working_for(Doing(7)):
            memory.remember(pair[known], decisions=[YES])
    with working_for(Doing(7, again=True, notes=notes)):
        assert [one.stdio for one in memory.recall(*pair) or ()] == [False, False]
