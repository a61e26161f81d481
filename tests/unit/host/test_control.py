"""Signals, shutdown, resize, constraints, properties and stacks."""

from __future__ import annotations

import json
import logging

import pytest

from unit.host.fakes import Bench, Finished
from uvmd.errors import (
    ContainerNotFound,
    ContainerStopped,
    Failed,
    PolicyDenied,
    ProcessNotFound,
    Refused,
    RuntimeFailed,
)
from uvmd.host.operations import asking, constraints, external, properties, resize, signal, stacks
from uvmd.host.requests import NULL_ID, ExecuteRequest

__all__ = ["asking"]


def test_a_signal_asks_and_reaches_the_one_process(bench: Bench) -> None:
    pid = bench.running()
    signal.send(bench.ctx, "c1", pid, 10)
    assert bench.monitor.arguments("kill") == [(1, 10)]
    assert bench.gate.asked[-1] == (
        "signal_container_process",
        {"containerID": "c1", "signal": 10, "isInitProcess": True, "argList": ["/bin/true"]},
    )


def test_signal_zero_is_kill(bench: Bench) -> None:
    pid = bench.running()
    signal.send(bench.ctx, "c1", pid, 0)
    assert bench.monitor.arguments("kill") == [(1, 9)]
    assert bench.told[0].exit_type == "ForcedExit"


@pytest.mark.parametrize(
    ("signals", "exit_type"),
    [([], "UnexpectedExit"), ([10], "UnexpectedExit"), ([15], "GracefulExit"), ([15, 10], "GracefulExit")],
)
def test_the_last_terminating_signal_names_the_exit(bench: Bench, signals: list[int], exit_type: str) -> None:
    pid = bench.running()
    for number in signals:
        signal.send(bench.ctx, "c1", pid, number)
    bench.monitor.end(1, 0)
    assert bench.told[0].exit_type == exit_type


def test_a_signal_that_is_not_delivered_leaves_the_exit_type(bench: Bench) -> None:
    pid = bench.running()
    bench.monitor.end(1, 0, drain=False)
    with pytest.raises(ProcessNotFound):
        signal.send(bench.ctx, "c1", pid, 9)
    bench.monitor.drain(1)
    assert bench.told[0].exit_type == "UnexpectedExit"


def test_an_impossible_signal_fails(bench: Bench) -> None:
    pid = bench.running()
    bench.monitor.failures["kill"] = OSError(22, "Invalid argument")
    with pytest.raises(Failed, match="Invalid argument"):
        signal.send(bench.ctx, "c1", pid, 999)


def test_a_denied_signal_is_not_sent(bench: Bench) -> None:
    pid = bench.running()
    bench.gate.denied.add("signal_container_process")
    with pytest.raises(PolicyDenied):
        signal.send(bench.ctx, "c1", pid, 9)
    assert bench.monitor.arguments("kill") == []


def test_external_processes_can_be_signalled_and_unknown_ones_are_no_container(bench: Bench) -> None:
    pid = external.execute(bench.ctx, ExecuteRequest(args=("sh",)))
    signal.send(bench.ctx, NULL_ID, pid, 15)
    assert bench.monitor.arguments("kill") == [(1, 15)]
    with pytest.raises(ContainerNotFound):
        signal.send(bench.ctx, NULL_ID, pid + 1, 15)
    with pytest.raises(ContainerNotFound):
        resize.resize(bench.ctx, NULL_ID, pid + 1, width=1, height=1)


@pytest.mark.parametrize(
    ("forced", "number", "exit_type"), [(True, 9, "ForcedExit"), (False, 15, "GracefulExit")]
)
def test_shutdown_signals_init_and_ends_redialling(
    bench: Bench, forced: bool, number: int, exit_type: str
) -> None:
    bench.running()
    signal.shutdown(bench.ctx, "c1", forced=forced)
    assert bench.monitor.arguments("kill") == [(1, number)]
    assert bench.monitor.arguments("stop_redial") == [1]
    if not forced:
        bench.monitor.end(1, 0)
    assert bench.told[0].exit_type == exit_type


def test_shutdown_of_a_stopped_container_says_so(bench: Bench) -> None:
    bench.running()
    bench.monitor.end(1, 0)
    with pytest.raises(ContainerStopped):
        signal.shutdown(bench.ctx, "c1", forced=True)


def test_resize_gives_rows_and_columns(bench: Bench) -> None:
    bench.create(spec=None)
    pid = bench.start()
    with pytest.raises(Failed):
        resize.resize(bench.ctx, "c1", pid, width=80, height=24)
    bench.monitor.slots[1].terminal = True
    resize.resize(bench.ctx, "c1", pid, width=80, height=24)
    assert bench.monitor.arguments("resize")[-1] == (1, 24, 80)


def test_constraints_reach_the_runtime_as_json(bench: Bench) -> None:
    bench.running()
    constraints.update(bench.ctx, "c1", {"pids": {"limit": 5}})
    (call,) = bench.monitor.arguments("runtime update")
    assert json.loads(call["stdin"]) == {"pids": {"limit": 5}}
    bench.monitor.failures["runtime update"] = OSError(2, "No such file or directory")
    with pytest.raises(RuntimeFailed):
        constraints.update(bench.ctx, "c1", {})
    with pytest.raises(ContainerNotFound):
        constraints.update(bench.ctx, "c2", {})


def test_a_limit_that_the_runtime_cannot_lift_is_lifted_all_the_same(bench: Bench) -> None:
    bench.running()
    group = bench.cgroup_top / "pods" / "c1"
    group.mkdir(exist_ok=True)
    (group / "pids.max").write_text("5")
    constraints.update(bench.ctx, "c1", {"pids": {"limit": -1}, "cpu": {"quota": -1}})
    (call,) = bench.monitor.arguments("runtime update")
    # A runtime that can is told all of it, and nothing is written behind its back.
    endless = {"quota": -1, "period": 100000}
    assert json.loads(call["stdin"]) == {"pids": {"limit": -1}, "cpu": endless}
    assert (group / "pids.max").read_text() == "5"
    bench.monitor.once["runtime update"] = Finished(1)
    constraints.update(bench.ctx, "c1", {"pids": {"limit": -1}, "memory": {"limit": 9}})
    assert json.loads(bench.monitor.arguments("runtime update")[-1]["stdin"]) == {
        "pids": {},
        "memory": {"limit": 9},
    }
    assert (group / "pids.max").read_text() == "max"
    (group / "pids.max").unlink()
    bench.monitor.once["runtime update"] = Finished(1)
    with pytest.raises(Failed, match=r"limits of /pods/c1: .*pids\.max"):
        constraints.update(bench.ctx, "c1", {"pids": {"limit": -1}})


def test_properties_hold_what_was_asked_for(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.running()
    group = bench.cgroup_top / "pods" / "c1"
    group.mkdir(parents=True)
    (group / "cgroup.procs").write_text("5\n7\n")
    (group / "pids.current").write_text("2\n")
    (group / "pids.max").write_text("max\n")
    assert properties.properties(bench.ctx, "c1", [], {}) == {}
    with caplog.at_level(logging.WARNING):
        found = properties.properties(bench.ctx, "c1", ["ProcessList", "Statistics", "Odd"], {})
    assert found["ProcessList"] == [{"ProcessId": 5}, {"ProcessId": 7}]
    assert found["LCOWMetrics"]["pids"] == {"current": 2}
    assert set(found) == {"ProcessList", "LCOWMetrics"}
    assert "ignoring" in caplog.text


def test_an_empty_process_list_is_left_out_and_a_missing_cgroup_fails(bench: Bench) -> None:
    bench.running()
    assert properties.properties(bench.ctx, "c1", ["ProcessList"], {}) == {}
    with pytest.raises(Failed, match="no controller knows"):
        properties.properties(bench.ctx, "c1", ["Statistics"], {})


def test_properties_ask_before_they_look_for_the_container(bench: Bench) -> None:
    bench.gate.denied.add("get_properties")
    with pytest.raises(PolicyDenied, match="get properties denied due to policy: no"):
        properties.properties(bench.ctx, "nobody", [], {})
    bench.gate.denied.clear()
    with pytest.raises(ContainerNotFound):
        properties.properties(bench.ctx, "nobody", [], {})


@pytest.mark.parametrize("types", [[], ["ProcessList"], ["uvmd.ps", "Statistics"]])
def test_the_vm_has_only_properties_of_our_own(bench: Bench, types: list[str]) -> None:
    with pytest.raises(Refused):
        properties.properties(bench.ctx, NULL_ID, types, {})


def test_the_vm_s_own_properties_come_from_their_sources(bench: Bench) -> None:
    bench.running()
    external.execute(bench.ctx, ExecuteRequest(args=("secret",)))
    sources = {"uvmd.ps": lambda _: properties.list_containers(bench.ctx), "uvmd.x": lambda _: 1}
    found = properties.properties(bench.ctx, NULL_ID, ["uvmd.ps", "uvmd.x", "uvmd.unknown"], sources)
    assert set(found) == {"uvmd.ps", "uvmd.x"}
    (container,) = found["uvmd.ps"]["containers"]
    assert (container["id"], container["state"]) == ("c1", "running")
    assert len(found["uvmd.ps"]["processes"]) == 1
    assert "secret" not in json.dumps(found)


def test_stacks_name_threads_and_places(bench: Bench) -> None:
    text = stacks.dump_stacks(bench.ctx)
    assert text.startswith(("1 threads", "2 threads", "3 threads", "4 threads"))
    assert "thread MainThread" in text
    assert "test_stacks_name_threads_and_places (test_control.py:" in text
    bench.gate.denied.add("dump_stacks")
    with pytest.raises(PolicyDenied):
        stacks.dump_stacks(bench.ctx)
