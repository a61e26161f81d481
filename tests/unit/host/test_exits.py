"""Exit codes, waits and the one notification."""

from __future__ import annotations

import sys

import pytest

from unit.host.fakes import Bench, container_spec
from uvmd.errors import ContainerNotFound, InvalidState, ProcessNotFound, WaitTimeout
from uvmd.host import exits
from uvmd.host.containers import Container, State
from uvmd.host.operations import exec, external
from uvmd.host.requests import NULL_ID, ExecuteRequest

__all__ = ["exits"]

PROCESS = {"args": ["/bin/ls"], "cwd": "/"}


def run_exec(bench: Bench) -> int:
    return exec.execute(bench.ctx, "c1", ExecuteRequest(oci_process=dict(PROCESS)))


def test_a_code_is_told_only_when_the_streams_are_drained(bench: Bench) -> None:
    pid = bench.running()
    outcome = bench.wait("c1", pid)
    bench.monitor.end(1, 3, drain=False)
    assert outcome == []
    assert bench.ctx.registry.get("c1").state is State.RUNNING
    bench.monitor.drain(1)
    assert outcome == [3]
    assert bench.ctx.registry.get("c1").state is State.TERMINATED


def test_the_end_is_told_once_and_without_any_waiter(bench: Bench) -> None:
    bench.running()
    bench.monitor.end(1, 0)
    bench.monitor.drain(1)
    assert [(e.container_id, e.activity_id, e.exit_type) for e in bench.told] == [
        ("c1", "activity", "UnexpectedExit")
    ]


def test_init_stays_addressable_and_execs_are_forgotten(bench: Bench) -> None:
    pid = bench.running()
    other = run_exec(bench)
    bench.monitor.end(2, 4)
    assert bench.wait("c1", other) == [4]
    (again,) = bench.wait("c1", other)
    assert isinstance(again, ProcessNotFound)
    assert bench.monitor.arguments("release") == [2]
    bench.monitor.end(1, 0)
    assert bench.wait("c1", pid) == [0]
    assert bench.wait("c1", pid) == [0]
    assert bench.monitor.arguments("release") == [2]


def test_all_who_wait_are_told_and_then_it_is_forgotten(bench: Bench) -> None:
    bench.running()
    pid = run_exec(bench)
    outcomes = [bench.wait("c1", pid) for _ in range(3)]
    bench.monitor.end(2, 1)
    assert outcomes == [[1], [1], [1]]
    assert bench.monitor.arguments("release") == [2]


def test_a_wait_that_timed_out_does_not_count(bench: Bench) -> None:
    bench.running()
    pid = run_exec(bench)
    outcome = bench.wait("c1", pid, 2000)
    bench.clock.now += 1.9
    bench.ctx.timers.run_due()
    assert outcome == []
    bench.clock.now += 0.2
    bench.ctx.timers.run_due()
    assert isinstance(outcome[0], WaitTimeout)
    bench.monitor.end(2, 1)
    assert bench.monitor.arguments("release") == []
    assert bench.wait("c1", pid) == [1]
    assert bench.monitor.arguments("release") == [2]


def test_a_wait_for_no_time_answers_at_once_and_prefers_the_code(bench: Bench) -> None:
    pid = bench.running()
    (outcome,) = bench.wait("c1", pid, 0)
    assert isinstance(outcome, WaitTimeout)
    bench.monitor.end(1, 5)
    assert bench.wait("c1", pid, 0) == [5]


def test_waiting_for_what_is_not_there_says_what_is_missing(bench: Bench) -> None:
    (unknown,) = bench.wait("c1", 1)
    assert isinstance(unknown, ContainerNotFound)
    (external_process,) = bench.wait(NULL_ID, 1)
    assert isinstance(external_process, ProcessNotFound)
    bench.ctx.registry.add(Container("c2", ""))
    (creating,) = bench.wait("c2", 1)
    assert isinstance(creating, InvalidState)
    bench.running()
    (wrong,) = bench.wait("c1", 1)
    assert isinstance(wrong, ProcessNotFound)


def test_an_external_process_goes_with_its_first_code(bench: Bench) -> None:
    pid = external.execute(bench.ctx, ExecuteRequest(args=("ls",)))
    bench.monitor.end(1, -9)
    assert bench.wait(NULL_ID, pid) == [137]
    (again,) = bench.wait(NULL_ID, pid)
    assert isinstance(again, ProcessNotFound)
    assert bench.files() == ["run/console", "run/containers", "run/journal"]


@pytest.mark.parametrize("namespaces", [[], [{"type": "pid", "path": "/proc/1/ns/pid"}], [{"type": "pid"}]])
def test_only_a_pid_namespace_of_its_own_ends_the_rest(
    bench: Bench, namespaces: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[str] = []
    monkeypatch.setattr(type(bench.ctx.cgroups), "kill", lambda self, path: killed.append(path))
    bench.running(linux={"namespaces": [*namespaces, {"type": "mount"}]})
    bench.monitor.end(1, 0)
    assert killed == ([] if namespaces == [{"type": "pid"}] else ["/pods/c1"])


def test_news_of_an_unknown_slot_changes_nothing(bench: Bench) -> None:
    bench.ctx.exits.exited(99, 1, 0)
    bench.ctx.exits.drained(99)
    assert bench.told == []


def test_a_process_given_up_is_told_as_ended(bench: Bench) -> None:
    pid = bench.running()
    outcome = bench.wait("c1", pid)
    init = bench.ctx.registry.get("c1").init
    assert init is not None
    bench.ctx.exits.give_up(init)
    assert outcome == [0xFFFFFFFF]
    assert len(bench.told) == 1


def test_thousands_of_waits_cost_less_than_a_kibibyte_each(bench: Bench) -> None:
    import tracemalloc

    pid = bench.running()
    outcomes: list[object] = []
    bench.ctx.exits.wait("c1", pid, 60_000, outcomes.append)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(5000):
            bench.ctx.exits.wait("c1", pid, 60_000, outcomes.append)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / 5000 < 1024 - sys.getsizeof(outcomes.append)
    bench.monitor.end(1, 0)
    assert outcomes == [0] * 5001
    assert bench.ctx.timers.run_due() is None


def test_waits_on_a_terminal_container_end_with_its_spec(bench: Bench) -> None:
    spec = container_spec()
    spec["process"]["terminal"] = True
    bench.create(spec=spec)
    pid = bench.start(stdout=1)
    bench.monitor.end(1, 2)
    assert bench.wait("c1", pid) == [2]
