"""A new daemon on what an earlier one left."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from unit.host.fakes import Bench, FakeSlot, Finished
from unit.host.pod_parts import NotedMounts, sandbox_spec, with_network
from uvmd.errors import ContainerExists, ContainerNotFound, InvalidState, ProcessNotFound
from uvmd.host import recovery
from uvmd.host.containers import Container, State
from uvmd.host.context import Context
from uvmd.host.doing import Doing, working_for
from uvmd.host.operations import delete, exec, external, interrupted
from uvmd.host.requests import NULL_ID, ContainerExit, ExecuteRequest
from uvmd.oci.role import read_role


class State_:
    """What HELLO answers."""

    def __init__(self, bench: Bench, requests: frozenset[int] = frozenset()) -> None:
        self.slots = list(bench.monitor.slots.values())
        self.requests = requests


def reborn(bench: Bench, *requests: int, finish: bool = True) -> list[ContainerExit]:
    """Let a new daemon take over, to which the monitor hands ``requests``; return what it tells."""
    bench.ctx = bench.fresh_context()
    told: list[ContainerExit] = []

    def listen(event: ContainerExit) -> None:
        told.append(event)
        if event.slot in bench.monitor.slots:
            bench.monitor.slots[event.slot].told = True

    bench.ctx.exits.listen(listen)
    for unfinished in recovery.recover(bench.ctx, State_(bench, frozenset(requests))):
        if finish:
            unfinished()
    return told


def outcome(ctx: Context, container_id: str, pid: int) -> list[Any]:
    found: list[Any] = []
    ctx.exits.wait(container_id, pid, 0xFFFFFFFF, found.append)
    return found


def test_a_running_container_is_taken_up_with_its_processes(bench: Bench) -> None:
    pid = bench.running()
    other = exec.execute(bench.ctx, "c1", ExecuteRequest(oci_process={"args": ["a"], "cwd": "/"}))
    outside = external.execute(bench.ctx, ExecuteRequest(args=("b",)))
    reborn(bench)
    assert bench.ctx.registry.get("c1").state is State.RUNNING
    waits = [
        outcome(bench.ctx, "c1", pid),
        outcome(bench.ctx, "c1", other),
        outcome(bench.ctx, NULL_ID, outside),
    ]
    assert waits == [[], [], []]
    for slot, status in ((2, 5), (3, 6), (1, 7)):
        bench.monitor.end(slot, status)
    assert waits == [[7], [5], [6]]


def test_codes_of_what_ended_meanwhile_are_answered(bench: Bench) -> None:
    pid = bench.running()
    other = exec.execute(bench.ctx, "c1", ExecuteRequest(oci_process={"args": ["a"], "cwd": "/"}))
    for slot, status in ((1, 3), (2, 4)):
        bench.monitor.slots[slot].status = status
        bench.monitor.slots[slot].drained = True
    told = reborn(bench)
    assert outcome(bench.ctx, "c1", pid) == [3]
    assert outcome(bench.ctx, "c1", other) == [4]
    assert [event.container_id for event in told] == ["c1"]


def test_an_end_that_was_told_is_not_told_again(bench: Bench) -> None:
    bench.running()
    bench.monitor.end(1, 0)
    assert len(bench.told) == 1
    bench.monitor.slots[1].told = True
    told = reborn(bench)
    assert told == []
    assert bench.ctx.registry.get("c1").state is State.TERMINATED


def test_exit_type_and_inheritance_survive(bench: Bench) -> None:
    bench.running(
        process={"args": ["x"], "cwd": "/", "rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}]}
    )
    before = bench.ctx.registry.get("c1")
    reborn(bench)
    after = bench.ctx.registry.get("c1")
    for name in (
        "user",
        "rlimits",
        "bundle",
        "root",
        "cgroup",
        "activity_id",
        "owns_pid_namespace",
        "tee_log",
    ):
        assert getattr(after, name) == getattr(before, name), name


def test_an_interrupted_create_is_undone(bench: Bench) -> None:
    bench.create()
    container = bench.ctx.registry.get("c1")
    bench.ctx.journal.save(container, state=State.CREATING)
    told = reborn(bench)
    with pytest.raises(ContainerNotFound):
        bench.ctx.registry.get("c1")
    assert bench.files() == ["run/console", "run/containers", "run/journal"]
    assert bench.monitor.slots == {}
    assert bench.monitor.containers == {}
    assert told == []


def test_a_slot_that_only_the_journal_knows_is_nobody_elses(bench: Bench) -> None:
    bench.running("c1")
    bench.create("c2")
    bench.ctx.journal.save(bench.ctx.registry.get("c2"), state=State.CREATING)
    # Killed before it had the slot opened: the monitor goes on counting below it.
    bench.monitor.slots.pop(2)
    bench.monitor.last_slot = 1
    reborn(bench, finish=False)
    exec.execute(bench.ctx, "c1", ExecuteRequest(oci_process={"args": ["a"], "cwd": "/"}))
    assert sorted(bench.monitor.slots) == [1, 3]


def test_an_interrupted_create_keeps_what_it_did_not_make(bench: Bench) -> None:
    bench.bundle("c1").mkdir()
    (bench.bundle("c1") / "config.json").write_text("theirs")
    bench.create()
    bench.ctx.journal.save(bench.ctx.registry.get("c1"), state=State.CREATING)
    reborn(bench)
    assert os.listdir(bench.bundle("c1")) == ["config.json"]
    assert (bench.bundle("c1") / "config.json").read_text() == "theirs"


def test_an_interrupted_create_that_cannot_be_undone_is_marked(bench: Bench) -> None:
    bench.create()
    bench.ctx.journal.save(bench.ctx.registry.get("c1"), state=State.CREATING)
    bench.monitor.outcomes["runtime delete"] = (Finished(1), '{"level":"error","msg":"boom"}\n')
    reborn(bench)
    assert bench.gate.degraded is not None
    assert "boom" in bench.gate.degraded


def test_an_interrupted_create_does_not_take_the_network_of_another_pod(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    NotedMounts().install(monkeypatch)
    network = with_network(bench, "n", "m")
    bench.create("s1", sandbox_spec("n"))
    bench.create("s2", sandbox_spec("m"))
    # A third one was on its way to the first one's namespace; it would have been refused there.
    interrupted = Container("s3", "", read_role("s3", sandbox_spec("n")), str(bench.bundle("s3")))
    bench.ctx.journal.save(interrupted)
    bench.ctx.journal.save(bench.ctx.registry.get("s2"), state=State.CREATING)
    assert set(network.attached) == {"n", "m"}
    reborn(bench)
    assert set(network.attached) == {"n"}
    assert [one.id for one in bench.ctx.registry.containers()] == ["s1"]
    assert bench.gate.degraded is None


def test_an_interrupted_delete_is_finished(bench: Bench) -> None:
    bench.running()
    bench.monitor.end(1, 0)
    bench.ctx.journal.save(bench.ctx.registry.get("c1"), doing="deleting")
    reborn(bench, finish=False)
    container = bench.ctx.registry.get("c1")
    with pytest.raises(InvalidState):
        with bench.ctx.registry.deleting(container, 0):
            pass
    interrupted.finish_delete(bench.ctx, container)
    assert bench.files() == ["run/console", "run/containers", "run/journal"]
    assert bench.monitor.slots == {}


def test_a_created_container_stays_created(bench: Bench) -> None:
    bench.create()
    reborn(bench)
    assert bench.ctx.registry.get("c1").state is State.CREATED
    assert bench.start()


def test_slots_without_a_record_are_ended(bench: Bench) -> None:
    bench.monitor.slots[8] = FakeSlot(8, pid=4242)
    reborn(bench)
    assert bench.monitor.arguments("kill") == [(8, 9)]
    assert bench.monitor.slots == {}


@pytest.mark.parametrize("force_fails", [False, True])
def test_a_container_whose_entry_is_lost_goes(bench: Bench, force_fails: bool) -> None:
    bench.running()
    (bench.cgroup_top / "pods" / "c1").mkdir(parents=True)
    (bench.run_dir / "journal" / "c1.json").write_text("{")
    if force_fails:
        bench.monitor.outcomes["runtime delete"] = (Finished(1), '{"level":"error","msg":"boom"}\n')
    reborn(bench)
    assert bench.monitor.slots == {}
    assert os.listdir(bench.cgroup_top / "pods") == []
    assert os.listdir(bench.run_dir / "containers") == []
    assert (bench.monitor.containers == {}) is not force_fails
    assert ("could not be removed" in str(bench.gate.degraded)) is force_fails


def test_directories_of_nobody_are_swept(bench: Bench) -> None:
    (bench.run_dir / "containers" / "c7").mkdir()
    bench.create()
    reborn(bench)
    assert os.listdir(bench.run_dir / "containers") == ["c1"]
    bench.create("c7")


def test_an_init_that_the_monitor_does_not_know_is_taken_for_ended(bench: Bench) -> None:
    pid = bench.running()
    bench.monitor.slots.clear()
    told = reborn(bench)
    assert outcome(bench.ctx, "c1", pid) == [0xFFFFFFFF]
    assert len(told) == 1


def test_acknowledged_processes_are_forgotten(bench: Bench) -> None:
    bench.running()
    other = exec.execute(bench.ctx, "c1", ExecuteRequest(oci_process={"args": ["a"], "cwd": "/"}))
    external.execute(bench.ctx, ExecuteRequest(args=("b",)))
    bench.monitor.slots.pop(2)
    bench.monitor.slots.pop(3)
    reborn(bench)
    assert other not in bench.ctx.registry.get("c1").execs
    assert bench.ctx.registry.external() == []
    assert os.listdir(bench.run_dir / "journal") == ["c1.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"version": 99}', '{"version": 1}', '{"version":1,"id":5}']
)
@pytest.mark.parametrize("name", ["c9.json", "external@9.json"])
def test_entries_that_make_no_sense_are_passed_over(
    bench: Bench, text: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench.running()
    (bench.run_dir / "journal" / name).write_text(text)
    reborn(bench)
    assert [container.id for container in bench.ctx.registry.containers()] == ["c1"]
    assert "journal" in caplog.text


@pytest.mark.parametrize("name", ["c9.json", "external@9.json"])
@pytest.mark.parametrize("strict", [False, True])
def test_an_entry_of_a_later_release_closes_the_door_of_a_strict_vm(
    bench: Bench, strict: bool, name: str
) -> None:
    bench.running()
    (bench.run_dir / "journal" / name).write_text('{"version": 99}')
    bench.gate.strict = strict
    reborn(bench)
    cause = f"the journal's {name} cannot be read: version 99, known is 2"
    assert cause in str(bench.gate.inconsistent if strict else bench.gate.degraded)
    assert (cause in str(bench.gate.closed)) is strict


def test_the_journal_is_owner_only_json_without_environments(bench: Bench) -> None:
    bench.running(process={"args": ["x"], "cwd": "/", "env": ["SECRET=hunter2"]})
    path: Path = bench.run_dir / "journal" / "c1.json"
    entry = json.loads(path.read_text())
    assert entry["state"] == "running"
    assert "hunter2" not in path.read_text()


# Requests that the monitor hands over again

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


def test_how_it_was_ended_is_known_from_the_signal_that_was_sent(bench: Bench) -> None:
    bench.running()
    bench.monitor.slots[1].signalled = 15
    bench.monitor.slots[1].status, bench.monitor.slots[1].drained = -15, True
    (event,) = reborn(bench)
    assert event.exit_type == "GracefulExit"


def test_logs_of_calls_that_a_killed_daemon_left_are_removed(bench: Bench) -> None:
    bench.running()
    bench.running("c2")
    (bench.run_dir / "containers" / "c2").rmdir()
    left, ours = (bench.run_dir / "containers" / "c1" / f"{pid}-7.log" for pid in (1, os.getpid()))
    left.touch()
    ours.touch()
    reborn(bench)
    assert left.exists(), "its call may not have ended yet"
    bench.clock.now += 60
    bench.ctx.timers.run_due()
    assert (left.exists(), ours.exists()) == (False, True)


def test_codes_are_kept_for_all_who_wait_until_they_must_have_come(bench: Bench) -> None:
    bench.running()
    other = exec.execute(bench.ctx, "c1", ExecuteRequest(oci_process={"args": ["a"], "cwd": "/"}))
    bench.monitor.slots[2].status, bench.monitor.slots[2].drained = 4, True
    bench.monitor.slots[2].told = True
    reborn(bench)
    assert [outcome(bench.ctx, "c1", other), outcome(bench.ctx, "c1", other)] == [[4], [4]]
    assert 2 in bench.monitor.slots
    bench.clock.now += 60
    bench.ctx.timers.run_due()
    assert 2 not in bench.monitor.slots
    (error,) = outcome(bench.ctx, "c1", other)
    assert isinstance(error, ProcessNotFound)


def test_a_slot_of_the_same_number_is_another_ones(bench: Bench) -> None:
    pid = bench.running()
    bench.monitor.slots[1] = FakeSlot(1, pid=pid + 1)
    reborn(bench)
    assert outcome(bench.ctx, "c1", pid) == [0xFFFFFFFF]
    assert bench.monitor.slots == {}, "and nobody knows that one"


def test_a_journal_of_the_release_before_is_taken_up(bench: Bench) -> None:
    pid = bench.running()
    path = bench.run_dir / "journal" / "c1.json"
    entry = json.loads(path.read_text())
    for name in ("created_by", "deleted_by"):
        del entry[name]
    path.write_text(json.dumps(entry))
    reborn(bench)
    assert bench.ctx.registry.get("c1").state is State.RUNNING
    assert outcome(bench.ctx, "c1", pid) == []
