"""Answers of the policy that outlive the daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from uvmd.api.policy import Decision
from uvmd.errors import Failed
from uvmd.host.doing import Doing, doing, working_for
from uvmd.host.records import Records
from uvmd.host.remembered import Remembered
from uvmd.host.table import MountTable

INPUT = {"argList": ("a", "b"), "set": {"y", "x"}, "nested": {"k": 1}}
YES = Decision(True, env=("A=1",), capabilities={"bounding": ["CAP_KILL"]}, stdio=False, extra={"x": 1})


def test_an_answer_is_found_again_for_the_same_question_of_the_same_request() -> None:
    notes: dict[str, bytes] = {}
    memory = Remembered(notes.__setitem__, Records())
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
    Remembered(notes.__setitem__, Records()).remember(("dump_stacks", {}), decisions=[YES])
    assert notes == {}
    assert not doing().number


def test_answers_that_were_given_together_are_found_together_and_not_by_themselves() -> None:
    notes: dict[str, bytes] = {}
    memory = Remembered(notes.__setitem__, Records())
    pair = ("scratch_mount", {"target": "/a"}), ("mount_overlay", {"target": "/b"})
    with working_for(Doing(7)):
        memory.remember(*pair, decisions=[YES, Decision(True)])
    assert len(notes) == 1
    with working_for(Doing(7, again=True, notes=notes)):
        assert [one.stdio for one in memory.recall(*pair) or ()] == [False, True]
        assert memory.recall(*reversed(pair)) is None
        assert [memory.recall(one) for one in pair] == [None, None]


def test_what_was_made_ready_counts_for_these_questions_alone() -> None:
    notes: dict[str, bytes] = {}
    memory = Remembered(notes.__setitem__, Records())
    first, second = ("scratch_mount", {"target": "/a"}), ("scratch_mount", {"target": "/b"})
    with working_for(Doing(7)):
        for ready in ((first,), (first, second)):
            memory.get_ready(*ready)
            for asked in (first, second):
                memory.remember(asked, decisions=[YES])
    assert len(notes) == 2
    with working_for(Doing(7, again=True, notes=notes)):
        assert memory.recall(first)
        assert memory.recall(second)


def test_what_cannot_be_remembered_fails_once_the_answer_is_there() -> None:
    memory, unwritable = Remembered(dict[str, bytes]().__setitem__, Records()), ("point", {"n": object()})
    with working_for(Doing(7)):
        memory.get_ready(unwritable)
        with pytest.raises(TypeError):
            memory.remember(unwritable, decisions=[YES])


def test_answers_that_an_earlier_release_was_given_one_by_one_are_found_if_all_are_there() -> None:
    notes: dict[str, bytes] = {}
    memory = Remembered(notes.__setitem__, Records())
    pair = ("scratch_mount", {"target": "/a"}), ("mount_overlay", {"target": "/b"})
    for known in range(2):
        with working_for(Doing(7, again=True, notes=notes)):
            assert memory.recall(*pair) is None
        with working_for(Doing(7)):
            memory.remember(pair[known], decisions=[YES])
    with working_for(Doing(7, again=True, notes=notes)):
        assert [one.stdio for one in memory.recall(*pair) or ()] == [False, False]


# Yes and no more, to a change that is on record

PAIR = ("scratch_mount", {"target": "/a"}), ("mount_overlay", {"target": "/b"})
ALLOWED = [Decision(True), Decision(True)]


def begun(path: Path, *requests: int) -> Records:
    records = Records(str(path))
    for number in requests:
        records.begin("Thing", f"thing:{number}", f"Add Thing {number}", number)
    return records


def later(path: Path, *open_requests: int) -> Records:
    records = Records(str(path))
    records.load(MountTable(), open_requests)
    return records


def asked_again(records: Records, number: int, notes: dict[str, bytes] | None = None) -> int | None:
    """How many answers a daemon finds that serves the request again."""
    here = Doing(number, again=True, notes=notes or {})
    with working_for(here):
        found = Remembered(lambda name, value: None, records).recall(*PAIR)
    assert here.recalled is (found is not None)
    return None if found is None else len([one for one in found if one == Decision(True)])


def test_a_plain_yes_stands_with_the_change_that_it_allows(tmp_path: Path) -> None:
    path, notes = tmp_path / "devices.json", dict[str, bytes]()
    records = begun(path, 7, 8)
    with working_for(Doing(7)):
        Remembered(notes.__setitem__, records).remember(*PAIR, decisions=ALLOWED)
    assert notes == {}
    assert asked_again(later(path, 7, 8), 7) == 2
    assert asked_again(later(path, 7, 8), 8) is None, "another request's"
    assert asked_again(later(path, 8), 7) is None, "it has been answered"


def test_a_yes_outlives_every_daemon_that_serves_the_request_and_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "devices.json"
    records = begun(path, 7)
    with working_for(Doing(7)):
        Remembered(lambda name, value: None, records).remember(*PAIR, decisions=ALLOWED)
    second = later(path, 7)
    second.begin("Thing", "thing:7", "Add Thing 7", 7)
    third = later(path, 7)
    assert asked_again(third, 7) == 2
    third.settle(7)
    third.begin("Thing", "thing:9", "Add Thing 9", 9)
    assert "mount_overlay" not in path.read_text().splitlines()[-1]


@pytest.mark.parametrize("ends", ["commit", "abort"])
def test_a_yes_is_forgotten_with_the_change(tmp_path: Path, ends: str) -> None:
    path = tmp_path / "devices.json"
    records = begun(path, 7)
    with working_for(Doing(7)):
        Remembered(lambda name, value: None, records).remember(*PAIR, decisions=ALLOWED)
    if ends == "commit":
        records.commit("Thing", "thing:7", {}, MountTable())
    else:
        records.abort("Thing", "thing:7", MountTable())
    assert "mount_overlay" not in path.read_text().splitlines()[-1]
    assert asked_again(later(path, 7), 7) is None


@pytest.mark.parametrize(
    ("requests", "decisions"),
    [((), ALLOWED), ((8,), ALLOWED), ((7,), [Decision(True), Decision(True, env=())])],
    ids=["nothing is on record", "another is", "more than yes"],
)
def test_whatever_else_was_answered_is_the_monitors(
    tmp_path: Path, requests: tuple[int, ...], decisions: list[Decision]
) -> None:
    path, notes = tmp_path / "devices.json", dict[str, bytes]()
    with working_for(Doing(7)):
        Remembered(notes.__setitem__, begun(path, *requests)).remember(*PAIR, decisions=decisions)
    assert len(notes) == 1
    with working_for(Doing(7, again=True, notes=notes)):
        found = Remembered(notes.__setitem__, later(path, 7)).recall(*PAIR)
    assert found is not None
    assert [one.allowed for one in found] == [True, True]


def test_a_yes_that_cannot_be_kept_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "devices.json"
    records = begun(path, 7)

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, working_for(Doing(7)):
        patched.setattr("os.write", full)
        with pytest.raises(Failed, match="cannot be recorded"):
            Remembered(lambda name, value: None, records).remember(*PAIR, decisions=ALLOWED)
    records.begin("Thing", "thing:9", "Add Thing 9", 9)
    assert asked_again(later(path, 7), 7) is None
