"""Requests that the monitor hands over again, and what an earlier daemon had done of them."""

from __future__ import annotations

import pytest

from unit.host.fakes import Bench, FakeSlot
from unit.host.rebirth import outcome, reborn
from uvmd.errors import ContainerExists, ContainerNotFound, InvalidState
from uvmd.host.containers import State
from uvmd.host.doing import Doing, working_for
from uvmd.host.operations import delete, interrupted

AGAIN = Doing(7, again=True)


def interrupted_create(bench: Bench, request: int = 7) -> None:
    with working_for(Doing(request)):
        bench.create()
    bench.ctx.journal.save(bench.ctx.registry.get("c1"), state=State.CREATING)


def test_a_create_that_is_asked_for_again_is_undone_by_that_request(bench: Bench) -> None:
    interrupted_create(bench)
    reborn(bench, 7)
    with pytest.raises(InvalidState):
        bench.ctx.registry.get("c1")
    with working_for(AGAIN):
        bench.create()
    assert bench.ctx.registry.get("c1").state is State.CREATED
    assert bench.monitor.names().count("runtime create") == 2
    assert [slot.number for slot in bench.monitor.slots.values()] == [2]
    assert bench.start()


def test_another_request_does_not_undo_it(bench: Bench) -> None:
    interrupted_create(bench)
    reborn(bench, 7, 8)
    with working_for(Doing(8, again=True)), pytest.raises(ContainerExists):
        bench.create()
    assert bench.ctx.registry.find("c1") is not None


def test_a_create_that_nobody_asks_for_again_is_undone_once_its_calls_have_ended(bench: Bench) -> None:
    interrupted_create(bench)
    reborn(bench)
    assert bench.monitor.awaited == [7]
    assert bench.ctx.registry.find("c1") is None


def test_a_create_that_was_done_is_not_done_again(bench: Bench) -> None:
    with working_for(Doing(7)):
        bench.create()
    reborn(bench, 7)
    with working_for(AGAIN):
        bench.create()
    assert bench.monitor.names().count("runtime create") == 1


def test_a_start_goes_on_where_it_was(bench: Bench) -> None:
    bench.create()
    bench.monitor.containers["c1"] = "running"
    bench.monitor.slots[1].status, bench.monitor.slots[1].drained = 5, True
    told = reborn(bench, 7)
    assert [event.container_id for event in told] == ["c1"]
    with working_for(Doing(7, again=True, done=frozenset({"1", "start"}))):
        pid = bench.start()
    assert outcome(bench.ctx, "c1", pid) == [5]


def test_a_delete_goes_on_and_says_that_it_is_done(bench: Bench) -> None:
    bench.running()
    bench.monitor.end(1, 0)
    container = bench.ctx.registry.get("c1")
    container.deleted_by = 7
    bench.ctx.journal.save(container, doing="deleting")
    reborn(bench, 7)
    again = Doing(7, again=True, notes={"deleting": b""})
    with working_for(again):
        delete.delete(bench.ctx, "c1")
        assert bench.ctx.registry.find("c1") is None
        delete.delete(bench.ctx, "c1")  # the answer was missing, nothing else
    with working_for(AGAIN), pytest.raises(ContainerNotFound):
        delete.delete(bench.ctx, "c1")


def test_the_end_that_a_delete_causes_leaves_it_on_record(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """The daemon, which gets no further."""

    def kill(*_: object) -> None:
        raise Killed

    bench.create()
    monkeypatch.setattr(delete, "delete_in_runtime", kill)
    with working_for(Doing(7)), pytest.raises(Killed):
        delete.delete(bench.ctx, "c1")
    (entry,) = bench.ctx.journal.containers()
    assert (entry["state"], entry["doing"], entry["deleted_by"]) == ("terminated", "deleting", 7)


@pytest.mark.parametrize("state", [State.CREATED, State.TERMINATED])
def test_a_delete_that_was_noted_and_not_journalled_is_done(bench: Bench, state: State) -> None:
    with working_for(Doing(3)):
        bench.create()
    if state is State.TERMINATED:
        bench.start()
        bench.monitor.end(1, 0)
    reborn(bench, 7)
    with working_for(Doing(7, again=True, notes={"deleting": b""})):
        delete.delete(bench.ctx, "c1")
    assert bench.ctx.registry.find("c1") is None
    assert bench.monitor.containers == {}
    assert bench.files() == ["run/console", "run/containers", "run/journal"]


def test_a_delete_that_was_done_leaves_a_later_container_of_its_id(bench: Bench) -> None:
    with working_for(Doing(8)):
        bench.create()
    reborn(bench, 7)
    with working_for(Doing(7, again=True, notes={"deleting": b""})):
        delete.delete(bench.ctx, "c1")
    assert bench.ctx.registry.get("c1").state is State.CREATED


def test_a_delete_under_another_monitor_knows_what_an_earlier_ones_request_created(bench: Bench) -> None:
    with working_for(Doing(90)):
        bench.create()
    bench.monitor.slots.clear()
    reborn(bench, 7)
    with working_for(Doing(7, again=True, notes={"deleting": b""})):
        delete.delete(bench.ctx, "c1")
    assert bench.ctx.registry.find("c1") is None


def test_a_delete_that_was_only_noted_spares_what_runs_by_now(bench: Bench) -> None:
    with working_for(Doing(3)):
        bench.running()
    reborn(bench, 7)
    with working_for(Doing(7, again=True, notes={"deleting": b""})), pytest.raises(InvalidState):
        delete.delete(bench.ctx, "c1")
    assert bench.ctx.registry.get("c1").state is State.RUNNING


def test_slots_of_a_request_are_left_to_it_and_go_with_it(bench: Bench) -> None:
    bench.monitor.slots[8] = FakeSlot(8, pid=4242, request=7)
    bench.monitor.earlier = {7: [8]}
    reborn(bench, 7)
    assert list(bench.monitor.slots) == [8]
    interrupted.settle(bench.ctx, AGAIN, failed=False)
    assert bench.monitor.slots == {}


@pytest.mark.parametrize("strict", [False, True])
def test_a_create_that_is_answered_without_being_served_is_undone(bench: Bench, strict: bool) -> None:
    interrupted_create(bench)
    bench.monitor.slots[1].request = 7
    bench.monitor.earlier = {7: [1]}
    reborn(bench, 7)
    bench.gate.strict = strict
    (finish,) = interrupted.settle(bench.ctx, AGAIN, failed=True)
    assert bench.monitor.slots, "the runtime may still be making it"
    finish()
    assert bench.monitor.awaited == [7]
    assert bench.ctx.registry.find("c1") is None
    assert bench.monitor.slots == bench.monitor.containers == {}
    assert bench.files() == ["run/console", "run/containers", "run/journal"]
    assert (bench.gate.inconsistent is not None) is strict


def test_a_delete_that_is_answered_without_being_served_is_finished(bench: Bench) -> None:
    bench.create()
    container = bench.ctx.registry.get("c1")
    container.deleted_by = 7
    bench.ctx.journal.save(container, doing="deleting")
    reborn(bench, 7)
    (finish,) = interrupted.settle(bench.ctx, AGAIN, failed=True)
    finish()
    assert bench.ctx.registry.find("c1") is None
    assert bench.files() == ["run/console", "run/containers", "run/journal"]


def test_a_request_that_was_served_leaves_nothing_to_finish(bench: Bench) -> None:
    with working_for(AGAIN):
        bench.create()
    assert interrupted.settle(bench.ctx, AGAIN, failed=False) == []
    assert interrupted.settle(bench.ctx, Doing(8, again=True), failed=True) == []


def test_a_request_that_fails_after_the_policy_had_allowed_it_marks_a_strict_vm(bench: Bench) -> None:
    recalled = Doing(7, again=True, recalled=True)
    interrupted.settle(bench.ctx, recalled, failed=False)
    interrupted.settle(bench.ctx, recalled, failed=True)
    assert bench.gate.degraded is None
    bench.gate.strict = True
    interrupted.settle(bench.ctx, AGAIN, failed=True)
    assert bench.gate.inconsistent is None
    interrupted.settle(bench.ctx, recalled, failed=True)
    assert bench.gate.inconsistent is not None
