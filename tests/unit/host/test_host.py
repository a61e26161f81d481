"""The facade: every request reaches its operation; the pods' limit; power-off."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from unit.host.fakes import Clock, FakeGate, FakeMonitor, FakeSlot, Finished, container_spec
from uvmd.errors import ContainerNotFound, Failed, Refused
from uvmd.host import power, registry
from uvmd.host.doing import Doing, working_for
from uvmd.host.host import Host, prepare_for_runtime
from uvmd.host.locks import ChangeLock
from uvmd.host.memory_limit import REFRESH_S, MemoryLimit
from uvmd.host.operations import end_all
from uvmd.host.parts import HostSettings
from uvmd.host.requests import NULL_ID, ContainerExit, ExecuteRequest
from uvmd.host.timers import Timers
from uvmd.linux import cgroup_setup, syscalls
from uvmd.linux.cgroups import Cgroups
from uvmd.oci.runtime import OciRuntime


@pytest.fixture
def monitor() -> FakeMonitor:
    return FakeMonitor()


@pytest.fixture
def host(tmp_path: Path, monitor: FakeMonitor) -> Iterator[Host]:
    (tmp_path / "bundles").mkdir()
    program = tmp_path / "crun"
    program.write_text("")
    program.chmod(0o755)
    settings = HostSettings(
        run_dir=str(tmp_path / "run"),
        bundle_roots=(str(tmp_path / "bundles"),),
        runtime=str(program),
        pods_cgroup="/uvmd-unit-test",
        drain_grace_s=0,
    )
    before = threading.stack_size()
    made = Host(settings, monitor, FakeGate(), ChangeLock())
    threading.stack_size(before)
    monitor.exits = made._exits
    return made


def create(host: Host, name: str = "c1") -> None:
    host.create_container(
        name,
        bundle=f"{host.settings.bundle_roots[0]}/{name}",
        scratch="",
        spec=container_spec(),
        activity_id="a",
    )


def test_a_container_lives_through_the_facade(host: Host, monitor: FakeMonitor) -> None:
    told: list[ContainerExit] = []
    host.on_container_exit(told.append)
    create(host)
    assert host.containers.status("c1") == "created"
    host.start_container("c1")
    pid = host.execute("c1", ExecuteRequest())
    other = host.execute("c1", ExecuteRequest(oci_process={"args": ["x"], "cwd": "/"}))
    outcome: list[Any] = []
    host.wait("c1", pid, 0xFFFFFFFF, outcome.append)
    host.signal("c1", other, 10)
    monitor.slots[1].terminal = True
    host.resize("c1", pid, width=1, height=2)
    host.update_constraints("c1", {})
    assert host.require_created("c1").id == "c1"
    assert host.containers.using_root(f"{host.settings.bundle_roots[0]}/c1/rootfs") == ["c1"]
    host.shutdown("c1", forced=False)
    host.exited(1, pid, 0)
    host.drained(1)
    assert outcome == [0]
    assert told == [ContainerExit("c1", "a", "GracefulExit", slot=1)]
    assert host.containers.status("c1") == "stopped"
    assert host.containers.using_root(f"{host.settings.bundle_roots[0]}/c1/rootfs") == []
    host.delete_container("c1")
    assert host.containers.status("c1") is None


def test_processes_in_the_vm_are_told_by_flag_or_id(host: Host, monitor: FakeMonitor) -> None:
    host.execute(NULL_ID, ExecuteRequest(args=("a",)))
    host.execute("c1", ExecuteRequest(args=("b",), in_vm=True))
    assert [call["argv"] for call in monitor.arguments("spawn")] == [["a"], ["b"]]


def test_start_of_an_unknown_container_changes_nothing(host: Host) -> None:
    host.start_container("nobody")


def test_own_properties_can_be_added(host: Host) -> None:
    host.serve_property("uvmd.mounts", lambda argument: [argument])
    found = host.properties(NULL_ID, ["uvmd.ps", "uvmd.mounts", "uvmd.mounts:below/x:y"])
    assert (found["uvmd.mounts"], found["uvmd.mounts:below/x:y"]) == ([""], ["below/x:y"])
    assert found["uvmd.ps"]["containers"] == []


def test_modify_goes_to_whoever_serves_it(host: Host) -> None:
    with pytest.raises(Refused):
        host.modify(NULL_ID, "Add", "X", None, False)
    seen: list[tuple[Any, ...]] = []

    class Modifier:
        def modify(self, *arguments: Any) -> None:
            seen.append(arguments)

    host.modifier = Modifier()
    host.modify(NULL_ID, "Add", "X", None, False)
    assert seen == [(NULL_ID, "Add", "X", None, False)]


def test_the_end_of_the_daemon_takes_every_container_along(host: Host, monitor: FakeMonitor) -> None:
    for name in ("c1", "c2"):
        create(host, name)
    host.execute("c1", ExecuteRequest())
    host.execute(NULL_ID, ExecuteRequest(args=("sh",)))
    host.end_all()
    assert monitor.containers == {}
    assert list(monitor.slots) == [3]  # the monitor's to end
    with pytest.raises(ContainerNotFound):
        host.require_created("c1")
    assert os.listdir(f"{host.settings.run_dir}/journal") == []
    with pytest.raises(Refused, match="stopping"):
        create(host, "c3")


def test_what_cannot_be_taken_down_at_the_end_is_logged(
    host: Host, monitor: FakeMonitor, caplog: pytest.LogCaptureFixture
) -> None:
    create(host)
    monitor.outcomes["runtime delete"] = (Finished(1), "")
    create(host, "c2")
    host.require_created("c2").deleting = True
    end_all.end_all(host._context)
    assert sorted(record.container for record in caplog.records if hasattr(record, "container"))[-2:] == [
        "c1",
        "c2",
    ]


def test_a_new_host_recovers_from_the_monitor_s_state(host: Host, monitor: FakeMonitor) -> None:
    class Answer:
        slots = (FakeSlot(9, pid=1),)
        requests: frozenset[int] = frozenset()

    monitor.slots[9] = Answer.slots[0]
    host.recover(Answer())
    assert monitor.slots == {}
    host.warm_up()
    assert not host.strict
    assert host.dump_stacks()


def test_power_off_needs_the_operator_s_word(host: Host) -> None:
    with pytest.raises(Refused):
        host.power_off()


def test_power_off_writes_out_the_disks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(power.os, "sync", lambda: order.append("sync"))
    monkeypatch.setattr(syscalls, "power_off", lambda: order.append("off"))
    assert power.power_off(True)
    assert order == ["sync", "off"]

    def refuse() -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(syscalls, "power_off", refuse)
    with pytest.raises(Failed, match="not permitted"):
        power.power_off(True)


# The pods' cgroup


def pods(tmp_path: Path, total: list[int]) -> MemoryLimit:
    (tmp_path / "memory").mkdir(exist_ok=True)
    (tmp_path / "memory" / "pods").mkdir(exist_ok=True)
    (tmp_path / "memory" / "pods" / "memory.limit_in_bytes").touch()
    return MemoryLimit(Cgroups({"memory": str(tmp_path / "memory")}, None), "/pods", 100, lambda: total[0])


def limit(tmp_path: Path) -> str:
    return (tmp_path / "memory" / "pods" / "memory.limit_in_bytes").read_text()


def test_the_limit_is_the_total_less_the_reserve_and_follows_it(tmp_path: Path) -> None:
    total = [1000]
    found = pods(tmp_path, total)
    found.setup()
    assert limit(tmp_path) == "900"
    (tmp_path / "memory" / "pods" / "memory.limit_in_bytes").write_text("")
    found.refresh()
    assert limit(tmp_path) == ""  # the same limit is not written again
    total[0] = 2000
    clock = Clock()
    timers = Timers(lambda: None, clock)
    found.keep_fresh(timers)
    clock.now += REFRESH_S
    timers.run_due()
    assert limit(tmp_path) == "1900"


def test_a_reserve_that_leaves_nothing_is_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    total = [100]
    found = pods(tmp_path, total)
    with pytest.raises(Failed, match="reserved"):
        found.setup()
    clock = Clock()
    timers = Timers(lambda: None, clock)
    found.keep_fresh(timers)
    for _ in range(2):
        clock.now += REFRESH_S
        assert timers.run_due() == REFRESH_S
    assert "ignoring" in caplog.text


def test_a_limit_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    found = MemoryLimit(Cgroups({"pids": str(tmp_path)}, None), "/pods", 1, lambda: 10)
    with pytest.raises(Failed, match="no memory controller"):
        found.setup()


# crun on a machine with both cgroup versions


@pytest.mark.parametrize(
    ("program", "left", "mounted"),
    [("crun", "hugetlb rdma\n", [["hugetlb", "rdma"]]), ("crun", "\n", []), ("runc", "hugetlb\n", [])],
)
def test_left_over_controllers_are_mounted_for_crun_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, left: str, mounted: list[list[str]]
) -> None:
    (tmp_path / program).write_text("")
    (tmp_path / program).chmod(0o755)
    (tmp_path / "cgroup.controllers").write_text(left)
    seen: list[list[str]] = []
    monkeypatch.setattr(cgroup_setup, "mount_controllers", lambda cgroups, names: seen.append(names))
    runtime = OciRuntime(FakeMonitor(), name=str(tmp_path / program), work="/", no_pivot=False, timeout_s=1)
    prepare_for_runtime(Cgroups({"pids": "/x"}, str(tmp_path)), runtime)
    assert seen == mounted
    prepare_for_runtime(Cgroups({}, str(tmp_path)), runtime)
    assert seen == mounted


def test_codes_that_nobody_asks_for_are_not_kept_without_end(
    host: Host, monitor: FakeMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "MAX_UNTOLD", 2)
    first, second, third = (host.execute(NULL_ID, ExecuteRequest(args=("/bin/true",))) for _ in range(3))
    for slot in (1, 2):
        monitor.end(slot, 0)
    with pytest.raises(Refused, match="2 processes have ended that nobody has waited for"):
        host.execute(NULL_ID, ExecuteRequest(args=("/bin/true",)))
    with working_for(Doing(7, again=True)):  # it was admitted when it began
        host.execute(NULL_ID, ExecuteRequest(args=("/bin/true",)))
    told: list[Any] = []
    host.wait(NULL_ID, first, 0, told.append)
    assert told == [0]
    assert host.execute(NULL_ID, ExecuteRequest(args=("/bin/true",))) not in (0, second, third)
