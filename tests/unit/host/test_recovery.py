"""A new daemon on what an earlier one left."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from unit.host.fakes import Bench, FakeSlot, Finished
from unit.host.pod_parts import NotedMounts, sandbox_spec, with_network
from unit.host.rebirth import outcome, reborn
from uvmd.api.transaction import Undo
from uvmd.errors import ContainerNotFound, InvalidState, ProcessNotFound
from uvmd.host.containers import Container, State
from uvmd.host.operations import exec, external, interrupted, pod_sources
from uvmd.host.requests import NULL_ID, ExecuteRequest
from uvmd.oci.role import read_role


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


def test_an_interrupted_create_takes_the_directories_above_its_bundle_along(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """The daemon, which gets no further."""

    def kill(*_: object) -> None:
        raise Killed

    usual = bench.bundle("c1").parent
    before = sorted(os.listdir(usual))
    monkeypatch.setattr(bench, "bundle", lambda id_: usual / "odd" / "way" / id_)
    with monkeypatch.context() as dying, pytest.raises(Killed):
        dying.setattr(pod_sources, "make", kill)
        dying.setattr(Undo, "close", kill)
        bench.create()
    assert (usual / "odd" / "way" / "c1").exists()
    reborn(bench)
    assert sorted(os.listdir(usual)) == before


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
