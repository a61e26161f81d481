"""When a step of a change fails, comes too late, or the daemon dies in the middle."""

from __future__ import annotations

import os
import shutil
import threading
from typing import Any

import pytest

from support.things import NAME, SETTINGS, THING, Thing, ThingSettings, bench, done, raising
from uvmd.api import Context, Decision, Found, Plan, Question, ResourceType, Verb
from uvmd.api.testing import ScriptedEnforcer, Workbench
from uvmd.errors import (
    DeadlineExceeded,
    Failed,
    Inconsistent,
    PolicyDenied,
    Refused,
)
from uvmd.host.bounded import Bounded
from uvmd.host.doing import Doing, working_for
from uvmd.host.modify import GRACE_S

# When a step fails


def test_a_denial_ends_it_before_anything_happened() -> None:
    workbench, thing = bench()
    workbench.be_strict({"modify_resource": False})
    with pytest.raises(PolicyDenied, match=f"^{NAME} denied by policy: the script denies modify_resource$"):
        workbench.add(NAME, SETTINGS)
    assert thing.steps == ["find strict", "plan"]
    assert workbench.mounted() == []
    assert workbench.gate.inconsistent is None


def test_the_first_no_ends_the_questions_and_takes_back_what_earlier_ones_left() -> None:
    thing = Thing()
    thing.plan = Plan((Question("one"), Question("two", refusal="second: "), Question("three")), done)
    type_ = ResourceType("CombinedLayers", "", points={Verb.ADD: ("one", "two", "three")})
    workbench = Workbench([type_], handlers={type_.name: thing})

    def remember(input: object) -> Decision:
        enforcer.metadata["one"] = True
        return Decision(True)

    enforcer = workbench.be_strict({"one": remember, "two": False})
    with pytest.raises(PolicyDenied, match=r"^second: "):
        workbench.add(type_.name, SETTINGS)
    assert enforcer.points == ["one", "two"]
    assert enforcer.metadata == {}


def test_a_claim_that_conflicts_ends_it_before_apply() -> None:
    workbench, thing = bench()
    workbench.add(NAME, SETTINGS)
    thing.steps.clear()
    with pytest.raises(Refused, match="already exists"):
        workbench.add(NAME, SETTINGS)
    assert thing.steps == ["find loose", "plan"]
    assert workbench.record(NAME, "path:/run/thing") == {"v": 1}


@pytest.mark.parametrize("strict", [True, False])
def test_a_failure_in_the_middle_puts_everything_back(strict: bool) -> None:
    workbench, thing = bench()
    enforcer: ScriptedEnforcer | None = None
    if strict:
        enforcer = workbench.be_strict()
        enforcer.script["modify_resource"] = lambda _: enforcer.metadata.update(x=1) or Decision(True)
    thing.before["apply"] = raising(OSError(28, "No space left on device", "/run/thing"))
    thing.before["undo"] = lambda: thing.steps.append(",".join(workbench.mounted()))
    with pytest.raises(Failed, match=f"^Add {NAME} path:/run/thing: /run/thing: no space left on device$"):
        workbench.add(NAME, SETTINGS)
    # The table is put back after the undo stack ran: until then the path is taken.
    assert thing.steps[-3:] == ["apply", "undo", "/run/thing"]
    assert workbench.mounted() == []
    assert workbench.record(NAME, "path:/run/thing") is None
    assert (workbench.gate.inconsistent, workbench.gate.degraded) == (None, None)
    assert enforcer is None or enforcer.metadata == {}


@pytest.mark.parametrize("strict", [True, False])
def test_an_undo_that_fails_marks_the_vm_and_the_first_error_is_the_answer(strict: bool) -> None:
    workbench, thing = bench()
    if strict:
        workbench.be_strict()
    thing.before["apply"] = raising(Failed("mount: bad superblock"))
    thing.before["undo"] = raising(OSError(16, "Device or resource busy"))
    with pytest.raises(Failed, match=r"^mount: bad superblock$"):
        workbench.add(NAME, SETTINGS)
    cause = workbench.gate.inconsistent if strict else workbench.gate.degraded
    assert cause is not None
    assert "Device or resource busy" in cause
    assert f"Add {NAME}" in cause


@pytest.mark.parametrize("strict", [True, False])
def test_a_failure_past_the_point_of_no_return_marks_the_vm(strict: bool) -> None:
    workbench, thing = bench()
    workbench.add(NAME, SETTINGS)
    if strict:
        workbench.be_strict()
    thing.irreversible = True
    thing.before["apply"] = raising(OSError(16, "Device or resource busy", "/run/thing"))
    with pytest.raises(Failed, match="device or resource busy"):
        workbench.remove(NAME, SETTINGS)
    assert "umount /run/thing" in ((workbench.gate.inconsistent if strict else workbench.gate.degraded) or "")
    assert workbench.mounted() == ["/run/thing"]
    assert workbench.record(NAME, "path:/run/thing") == {"v": 1}
    if strict:
        with pytest.raises(Inconsistent):
            workbench.remove(NAME, SETTINGS)
    else:
        thing.before.clear()
        workbench.remove(NAME, SETTINGS)


@pytest.mark.parametrize("step", ["find loose", "plan", "apply"])
def test_what_a_handler_raises_by_mistake_is_answered_without_its_text(step: str) -> None:
    workbench, thing = bench()
    thing.before[step] = raising(KeyError("SECRET"))
    with pytest.raises(Failed, match=f"Add {NAME} path:/run/thing: KeyError in its handler") as caught:
        workbench.add(NAME, SETTINGS)
    assert "SECRET" not in str(caught.value)
    assert workbench.lock.table() == ()


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"v": 1, "key": "x" * 4096}, "at most 4096 bytes"),
        ({"v": {1, 2}}, "plain JSON"),
        ({"v": (1, 2)}, "plain JSON"),
        ({1: "v"}, "plain JSON"),
        ({"v": float("nan")}, "plain JSON"),
        (["v"], "an object, not list"),
    ],
    ids=repr,
)
def test_a_record_that_cannot_be_kept_undoes_the_change(record: Any, text: str) -> None:
    workbench, thing = bench()
    thing.made = record
    with pytest.raises(Failed, match=text):
        workbench.add(NAME, SETTINGS)
    assert thing.steps[-1] == "undo"
    assert workbench.mounted() == []


def test_a_handler_that_cannot_be_loaded_is_an_error_of_its_requests_only() -> None:
    type_ = ResourceType(NAME, "uvmd.no_such_module:Thing")
    with pytest.raises(Failed, match=f"{NAME}: its handler cannot be loaded: ModuleNotFoundError"):
        Workbench([type_]).add(NAME, SETTINGS)


# Descriptors, time


def test_descriptors_that_were_kept_are_closed_whatever_happens() -> None:
    kept: list[int] = []

    class Keeping(Thing):
        def find(self, settings: ThingSettings, verb: Verb, ctx: Context) -> Found:
            kept.append(ctx.keep(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)))
            return super().find(settings, verb, ctx)

        def step(self, name: str) -> None:
            if name == "apply":
                os.fstat(kept[-1])
            super().step(name)

    thing = Keeping()
    workbench = Workbench([THING], handlers={NAME: thing})
    workbench.add(NAME, SETTINGS)
    thing.before["plan"] = raising(Refused("no"))
    with pytest.raises(Refused):
        workbench.remove(NAME, SETTINGS)
    assert len(kept) == 2
    for fd in set(kept):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


@pytest.mark.parametrize("irreversible", [False, True])
def test_what_finishes_after_its_answer_is_undone_if_it_can_be_else_recorded(irreversible: bool) -> None:
    workbench, thing = bench()
    thing.irreversible = irreversible
    bounded = Bounded(60)

    def be_late() -> None:
        assert [line.who for line in workbench.lock.table()] == [f"Add {NAME} path:/run/thing"]
        assert bounded.give_up()

    thing.before["apply"] = be_late
    with working_for(Doing(bounded=bounded)):
        if irreversible:
            workbench.add(NAME, SETTINGS)
        else:
            with pytest.raises(DeadlineExceeded, match="finished after its time, undone"):
                workbench.add(NAME, SETTINGS)
    assert bounded.what == f"Add {NAME} path:/run/thing"
    assert not workbench.lock.table()
    assert workbench.mounted() == (["/run/thing"] if irreversible else [])
    assert ("undo" in thing.steps) is not irreversible
    assert workbench.gate.degraded is None


def test_a_handler_has_its_own_error_ready_before_the_request_is_late() -> None:
    class Waiting(Thing):
        def find(self, settings: ThingSettings, verb: Verb, ctx: Context) -> Found:
            deadlines.append(ctx.deadline)
            return super().find(settings, verb, ctx)

    deadlines: list[float] = []
    workbench, bounded = Workbench([THING], handlers={NAME: Waiting()}), Bounded(60)
    with working_for(Doing(bounded=bounded)):
        workbench.add(NAME, SETTINGS)
    assert deadlines == [bounded.deadline - GRACE_S]


def test_two_requests_for_one_thing_come_one_after_the_other() -> None:
    workbench, thing = bench()
    inside, errors = [], []

    def apply() -> None:
        inside.append([line.who for line in workbench.lock.table() if not line.waiting])

    thing.before["apply"] = apply

    def request() -> None:
        try:
            workbench.add(NAME, SETTINGS)
        except Refused as error:
            errors.append(str(error))

    threads = [threading.Thread(target=request) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert [len(holders) for holders in inside] == [1]
    assert len(errors) == 3


# A restarted daemon


def test_a_restarted_daemon_hands_remove_what_add_recorded(tmp_path: Any) -> None:
    path = str(tmp_path / "devices.json")
    before, _ = bench(records=path)
    before.add(NAME, SETTINGS)
    after, thing = bench(records=path)
    after.modifier.resume()
    assert after.mounted() == ["/run/thing"]
    assert after.gate.degraded is None
    after.remove(NAME, SETTINGS)
    assert thing.records == [{"v": 1}]
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_what_the_daemon_died_in_the_middle_of_marks_the_vm(tmp_path: Any) -> None:
    path = str(tmp_path / "devices.json")
    before, _ = bench(records=path)
    before.records.begin(NAME, "path:/run/thing", "Add thing")
    after, _ = bench(records=path)
    after.be_strict()
    after.modifier.resume()
    assert after.gate.inconsistent == "the daemon ended in the middle of Add thing"


def test_what_is_under_way_is_known_by_its_whole_path(tmp_path: Any) -> None:
    records, target = str(tmp_path / "devices.json"), "/run/" + "m" * 300
    before, thing = bench(records=records)
    before.add(NAME, {"Path": target})

    def die() -> None:
        shutil.copy(records, f"{records}.left")

    thing.before["apply"] = die
    with working_for(Doing(7)):
        before.remove(NAME, {"Path": target})
    after, _ = bench(records=f"{records}.left")
    after.modifier.resume((7,))
    assert after.modifier.under_way == after.mounted() == [target]
    after.modifier.settle(7, failed=True)
    assert len(str(after.gate.degraded)) < 400


BROKEN = ["", "{}", '{"v":2}', "[]", '{"v":1,"records":[[1]],"mounts":[],"doing":[]}']


@pytest.mark.parametrize("text", BROKEN)
def test_records_that_cannot_be_read_mark_the_vm(tmp_path: Any, text: str) -> None:
    path = tmp_path / "devices.json"
    path.write_text(text)
    workbench, _ = bench(records=str(path))
    workbench.modifier.resume()
    assert workbench.gate.degraded is not None


def test_a_change_that_cannot_be_recorded_does_not_begin(tmp_path: Any) -> None:
    (tmp_path / "file").touch()
    workbench, thing = bench(records=str(tmp_path / "file" / "devices.json"))
    with pytest.raises(Failed, match="cannot be recorded"):
        workbench.add(NAME, SETTINGS)
    assert thing.steps == ["find loose", "plan"]
    assert workbench.mounted() == []
