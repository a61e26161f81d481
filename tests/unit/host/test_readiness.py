"""What is ready for a change before the policy's answer is there, and goes again with a no."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.things import NAME, SETTINGS, THING, Thing, bench, raising
from uvmd.api import Answers, Claim, Decision, Keep, Kind, Plan, Question, Undo
from uvmd.api.names import MODIFY_RESOURCE
from uvmd.api.testing import POLICY, ScriptedEnforcer, Workbench
from uvmd.errors import Failed, PolicyDenied, Refused
from uvmd.host.doing import Doing, working_for
from uvmd.host.locks import ChangeLock
from uvmd.host.readiness import Line, Readiness
from uvmd.host.records import Records
from uvmd.host.remembered import Remembered
from uvmd.host.table import MountTable
from uvmd.policy.selection import PolicySettings


class FarAway(ScriptedEnforcer):
    """Looks at the VM after what is done meanwhile, and before it answers."""

    look: Callable[[], object] = staticmethod(lambda: None)

    def decide_all(
        self, questions: Sequence[tuple[str, Mapping[str, Any]]], meanwhile: Callable[[], None] = lambda: None
    ) -> Sequence[Decision]:
        meanwhile()
        self.look()
        return super().decide_all(questions)


class Vm:
    """A workbench whose policy is far away, with its records in a file."""

    def __init__(self, path: Path, allowed: bool = True, number: int = 7) -> None:
        self.path = path
        self.bench, self.thing = bench(records=str(path))
        self.doing = Doing(number)
        self.enforcer = FarAway(POLICY, {MODIFY_RESOURCE: allowed})
        self.notes: dict[str, bytes] = {}
        self.bench.gate._memory = Remembered(self.notes.__setitem__, self.bench.records)
        self.bench.gate.adopt(PolicySettings("scripted", POLICY), self.enforcer)
        self.enforcer.look = self._look  # type: ignore[method-assign]
        self.seen: list[tuple[list[str], list[str]]] = []
        self.bench.modifier.resume((number,))

    def _look(self) -> None:
        self.seen.append((self.bench.mounted(), self.last_line()["doing"]))

    def last_line(self) -> Any:
        return json.loads(self.path.read_text().splitlines()[-1])

    def add(self) -> None:
        with working_for(self.doing):
            self.bench.add(NAME, SETTINGS)

    def again(self) -> Vm:
        """The next daemon, which is given the same request."""
        later = Vm(self.path)
        later.doing = Doing(7, again=True, notes=self.notes)
        return later


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "devices.json"


def applied(undo: Undo, answers: Answers) -> dict[str, Any]:
    return {"v": 1}


def preparing(
    thing: Thing,
    prepare: Callable[[Keep], None],
    apply: Callable[[Undo, Answers], dict[str, Any]] = applied,
) -> None:
    claims = [Claim("/run/thing", "t", Kind.READ_WRITE)]
    thing.plan = Plan((Question(MODIFY_RESOURCE),), apply, claims, prepare=prepare)


def test_claims_and_the_line_on_record_are_there_while_the_policy_is_asked(path: Path) -> None:
    vm = Vm(path)
    vm.add()
    assert vm.seen == [(["/run/thing"], [f"Add {NAME} path:/run/thing"])]
    assert vm.last_line()["doing"] == []
    assert vm.bench.mounted() == ["/run/thing"]


def test_a_no_leaves_neither(path: Path) -> None:
    vm = Vm(path, allowed=False)
    with pytest.raises(PolicyDenied):
        vm.add()
    assert len(vm.seen) == 1
    assert (vm.last_line()["doing"], vm.last_line()["mounts"], vm.bench.mounted()) == ([], [], [])
    assert vm.thing.steps == ["find strict", "plan"]
    assert (vm.bench.gate.inconsistent, vm.bench.record(NAME, "path:/run/thing")) == (None, None)


@pytest.mark.parametrize("allowed", [True, False])
def test_a_claim_that_conflicts_is_told_after_a_yes_alone(path: Path, allowed: bool) -> None:
    vm = Vm(path)
    vm.add()
    vm.enforcer.script[MODIFY_RESOURCE] = allowed
    with pytest.raises(Refused if allowed else PolicyDenied):
        vm.add()
    assert vm.bench.mounted() == ["/run/thing"]
    assert vm.last_line()["doing"] == []


def test_a_handler_prepares_before_its_apply_and_what_it_hands_over_is_closed(path: Path) -> None:
    vm, opened = Vm(path), list[int]()

    def prepare(keep: Keep) -> None:
        vm.thing.steps.append("prepare")
        opened.append(os.open("/", os.O_PATH))
        keep(opened[0])

    def apply(undo: Undo, answers: Answers) -> dict[str, Any]:
        os.fstat(opened[0])
        vm.thing.steps.append("apply")
        return {"v": 1}

    preparing(vm.thing, prepare, apply)
    vm.add()
    assert vm.thing.steps == ["find strict", "plan", "prepare", "apply"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])


@pytest.mark.parametrize("allowed", [True, False])
def test_what_fails_in_preparing_fails_the_change_after_a_yes(path: Path, allowed: bool) -> None:
    vm = Vm(path, allowed)

    def prepare(keep: Keep) -> None:
        keep(os.open("/", os.O_PATH))
        raise OSError(5, "Input/output error", "/secret")

    preparing(vm.thing, prepare)
    with pytest.raises(Failed if allowed else PolicyDenied) as raised:
        vm.add()
    assert ("secret" in str(raised.value)) is allowed
    assert (vm.bench.mounted(), vm.last_line()["doing"]) == ([], [])


def test_a_handler_prepares_where_nobody_is_asked_too() -> None:
    prepared = []
    thing = Thing()
    thing.plan = Plan((), applied, prepare=lambda keep: prepared.append(True))
    type_ = THING._replace(name="Network", points={})
    Workbench([type_], handlers={type_.name: thing}).add("Network", SETTINGS)
    assert prepared == [True]


# A daemon that is killed meanwhile


class Killed(BaseException):
    pass


def killed_while_asked(path: Path) -> Vm:
    vm = Vm(path)
    vm.enforcer.look = raising(Killed())  # type: ignore[method-assign]
    vm.bench.records.abort = lambda *arguments: None  # type: ignore[method-assign]
    with pytest.raises(PolicyDenied):
        vm.add()
    assert vm.last_line()["doing"] != []
    return vm


def test_a_request_that_was_only_being_asked_for_is_served_by_the_next_daemon(path: Path) -> None:
    later = killed_while_asked(path).again()
    later.add()
    assert later.enforcer.points.count(MODIFY_RESOURCE) == 1
    assert later.bench.mounted() == ["/run/thing"]
    assert later.bench.gate.inconsistent is None


def test_a_no_then_marks_nothing_since_nothing_had_been_done(path: Path) -> None:
    later = killed_while_asked(path).again()
    later.enforcer.script[MODIFY_RESOURCE] = False
    with pytest.raises(PolicyDenied):
        later.add()
    later.bench.modifier.settle(7, failed=True)
    assert later.bench.gate.inconsistent is None
    assert later.last_line()["doing"] == []


def test_what_was_begun_without_a_policy_marks_the_vm_also_when_one_came_since(path: Path) -> None:
    before, thing = bench(records=str(path))
    thing.before["apply"] = raising(Killed())
    before.records.abort = lambda *arguments: None  # type: ignore[method-assign]
    with pytest.raises(Killed), working_for(Doing(7)):
        before.add(NAME, SETTINGS)
    later = Vm(path, allowed=False)
    later.doing = Doing(7, again=True)
    with pytest.raises(PolicyDenied):
        later.add()
    later.bench.modifier.settle(7, failed=True)
    assert "which then failed" in (later.bench.gate.inconsistent or "")


def killed_in_apply(vm: Vm) -> Vm:
    """The daemon after one that was killed once the policy had said yes."""
    vm.thing.before["apply"] = raising(Killed())
    vm.bench.records.abort = lambda *arguments: None  # type: ignore[method-assign]
    with pytest.raises(Killed):
        vm.add()
    return vm.again()


def test_a_yes_holds_however_many_daemons_are_killed_in_the_middle(path: Path) -> None:
    last = killed_in_apply(killed_in_apply(Vm(path)))
    last.add()
    assert MODIFY_RESOURCE not in last.enforcer.points
    assert last.bench.mounted() == ["/run/thing"]
    assert last.bench.gate.inconsistent is None


def test_a_failure_after_a_yes_of_the_earlier_daemons_marks_the_vm(path: Path) -> None:
    later = killed_in_apply(Vm(path))
    later.thing.before["apply"] = raising(Failed("not now"))
    with pytest.raises(Failed, match="not now"):
        later.add()
    assert MODIFY_RESOURCE not in later.enforcer.points, "the yes of before counts"
    later.bench.modifier.settle(7, failed=True)
    assert "which then failed" in (later.bench.gate.inconsistent or "")


def test_records_are_not_written_for_what_was_never_begun(tmp_path: Path) -> None:
    path = tmp_path / "devices.json"
    vm = Vm(path)
    vm.bench.gate.close_door("doubt")
    with pytest.raises(PolicyDenied, match="doubt"):
        vm.add()
    assert not path.exists()
    assert Records(str(path)).get(NAME, "path:/run/thing") is None


@pytest.mark.parametrize("where", ["prepare", "find"])
def test_what_a_handler_keeps_is_closed_before_anybody_else_may_change_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    vm, held, opened = Vm(path), list[bool](), list[int]()
    hold = ChangeLock.hold

    @contextmanager
    def holding(*args: Any, **options: Any) -> Iterator[None]:
        with hold(*args, **options):
            yield
            held.append(os.path.exists(f"/proc/self/fd/{opened[0]}"))

    monkeypatch.setattr(ChangeLock, "hold", holding)

    def prepare(keep: Keep) -> None:
        opened.append(os.open("/", os.O_PATH))
        keep(opened[0])

    if where == "prepare":
        preparing(vm.thing, prepare)
    else:
        monkeypatch.setattr(vm.thing, "find", lambda settings, verb, ctx: prepare(ctx.keep))
    vm.add()
    assert held == [False]


# Several changes at once, where the VM is not strict


def shared(path: Path, *plans: Plan) -> tuple[MountTable, list[Readiness]]:
    """Changes of one VM that are all under way, each for the request of its number."""
    records, table = Records(str(path)), MountTable()
    table.change([Claim("/run/old", "o", Kind.READ_ONLY)], strict=False)
    records.keep(table)
    changes = []
    for number, plan in enumerate(plans, start=1):
        line = Line((NAME, f"{number}"), f"Change {number}", number, False)
        changes.append(Readiness(plan, table, records, line, lambda fd: None, strict=False))
        changes[-1].look()
        changes[-1].get()
    return table, changes


def taken_up(path: Path, *open_requests: int) -> MountTable:
    table = MountTable()
    Records(str(path)).load(table, open_requests)
    return table


def nothing(undo: Undo, answers: Answers) -> None:
    """What is mounted is not these tests'."""


NEW = Plan((), nothing, (Claim("/run/new", "n", Kind.READ_WRITE),))
OTHER = Plan((), nothing, (Claim("/run/other", "x", Kind.READ_WRITE),))
OLD_GOES = Plan((), nothing, releases=(Claim("/run/old", "o", Kind.READ_ONLY),))


def test_a_daemon_that_dies_in_two_changes_forgets_the_one_that_was_not_done(path: Path) -> None:
    table, (first, second) = shared(path, NEW, OTHER)
    second.commit({"v": 1})
    after = taken_up(path, 1, 2)
    assert [claim.target for claim in after.claims()] == ["/run/old", "/run/other"]
    after.change(NEW.claims, strict=False)  # as the request that is asked for again
    first.commit({"v": 1})
    assert taken_up(path, 1, 2).rows() == table.rows()


def test_a_removal_that_was_not_done_finds_again_what_it_found(path: Path) -> None:
    _, (first, second) = shared(path, OLD_GOES, OTHER)
    second.commit({"v": 1})
    assert [claim.target for claim in taken_up(path, 1, 2).claims()] == ["/run/other", "/run/old"]
    first.commit(None)
    assert [claim.target for claim in taken_up(path, 1, 2).claims()] == ["/run/other"]


def test_claims_that_the_release_before_had_on_record_too_early_are_left_out(path: Path) -> None:
    shared(path, NEW)
    line = json.loads(path.read_text().splitlines()[-1])
    row = {**line["mounts"][0], "target": "/run/new"}
    path.write_text(json.dumps({**line, "mounts": [*line["mounts"], row]}) + "\n")
    assert [claim.target for claim in taken_up(path, 1).claims()] == ["/run/old"]
    # That it was done is on record, and the line of the daemon before is still there.
    path.write_text(json.dumps({**line, "done": [1], "mounts": [*line["mounts"], row]}) + "\n")
    assert [claim.target for claim in taken_up(path, 1).claims()] == ["/run/old", "/run/new"]
