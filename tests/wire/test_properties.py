"""GetProperties and ContainerConstraints: what the kernel says, in the wire's shape."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import machine, specs
from support.containers import Container, created, new_id, shell
from support.daemon import Daemon
from support.host import GET_PROPERTIES, MODIFY, ZERO_GUID, Connection, code
from support.matrix import row

MIB = 1 << 20


def limit_file(daemon: Daemon, container_id: str) -> Path:
    below = f"{daemon.pods.lstrip('/')}/{container_id}"
    if machine.cgroup_mode() == "v2":
        return machine.CGROUPS / below / "memory.max"
    return machine.CGROUPS / "memory" / below / "memory.limit_in_bytes"


@row("properties.process-list", "properties.statistics")
def test_processes_and_statistics_of_a_running_container(daemon: Daemon, bridge: Connection) -> None:
    with created(bridge, *shell("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; sleep 60")) as container:
        init = container.init()
        exec_ = container.exec("/bin/sleep", "60")
        answer = bridge.properties(container.id, "ProcessList", "Statistics")
        pids = {entry["ProcessId"] for entry in answer["ProcessList"]}
        assert {init.pid, exec_.pid} <= pids
        metrics = answer["LCOWMetrics"]
        assert metrics["pids"]["current"] >= 2
        assert metrics["cpu"]["usage"]["total"] > 0
        assert metrics["memory"]["usage"]["usage"] > 0
        # Emptied before sending, or absent where the controller is not there.
        assert metrics.get("blkio", {}) == {}
        assert metrics.get("rdma", {}) == {}
        assert "network" not in metrics
        assert "cgroup_stats" not in metrics


@row("properties.none")
def test_nothing_asked_gives_an_empty_object(bridge: Connection) -> None:
    with created(bridge, "/bin/sleep", "60") as container:
        container.init()
        assert bridge.properties(container.id) == {}
        assert bridge.properties(container.id, "Unknown", "Other") == {}
        body = {"ContainerId": container.id, "ActivityId": ZERO_GUID}
        for query in ("", '{"PropertyTypes":[]}', '{"PropertyTypes":null}', "{}", "null"):
            answer = bridge.ask(GET_PROPERTIES, {**body, "Query": query})
            assert (code(answer), answer["Properties"]) == ("S_OK", "{}")


def test_a_created_container_has_properties(bridge: Connection) -> None:
    with created(bridge, "/bin/sleep", "60") as container:
        answer = bridge.properties(container.id, "Statistics", "ProcessList")
        assert len(answer["ProcessList"]) == 1
        # One process; runc's waiting init has several threads, which count too.
        assert answer["LCOWMetrics"]["pids"]["current"] >= 1


def test_a_stopped_container_lists_no_processes(bridge: Connection) -> None:
    with created(bridge, "/bin/true") as container:
        assert container.init().wait() == 0
        assert "ProcessList" not in bridge.properties(container.id, "ProcessList")


@row("modify.constraints")
@pytest.mark.parametrize("request_type", ["Update", "Add", "Remove", ""])
def test_constraints_reach_the_cgroup(daemon: Daemon, bridge: Connection, request_type: str) -> None:
    with created(bridge, "/bin/sleep", "60") as container:
        container.init()
        settings = {"Linux": {"memory": {"limit": 64 * MIB}, "cpu": {"shares": 512}}, "Windows": {"any": 1}}
        inner = {"RequestType": request_type, "ResourceType": "ContainerConstraints", "Settings": settings}
        body = {"ContainerId": container.id, "ActivityId": ZERO_GUID, "Request": inner}
        assert code(bridge.ask(MODIFY, body)) == "S_OK"
        assert int(limit_file(daemon, container.id).read_text()) == 64 * MIB
        metrics = bridge.properties(container.id, "Statistics")["LCOWMetrics"]
        assert metrics["memory"]["usage"]["limit"] == 64 * MIB


def test_constraints_the_kernel_refuses_are_an_error(bridge: Connection) -> None:
    with created(bridge, "/bin/sleep", "60") as container:
        init = container.init()
        settings = {"Linux": {"cpu": {"cpus": "9000-9001"}}}
        inner = {"RequestType": "Update", "ResourceType": "ContainerConstraints", "Settings": settings}
        body = {"ContainerId": container.id, "ActivityId": ZERO_GUID, "Request": inner}
        assert code(bridge.ask(MODIFY, body)) == "E_FAIL"
        container.kill()
        assert init.wait() == 137


def test_the_containers_live_below_the_configured_cgroup(daemon: Daemon, bridge: Connection) -> None:
    with created(bridge, "/bin/sleep", "60") as container:
        init = container.init()
        text = Path(f"/proc/{init.pid}/cgroup").read_text()
        assert f"{daemon.pods}/{container.id}" in text


def test_the_pods_cgroup_has_its_limit(daemon: Daemon, bridge: Connection) -> None:
    total = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal")
    )
    limit = int(limit_file(daemon, "").read_text())
    reserve = 192 * MIB
    # sysinfo and meminfo may differ by what the kernel keeps for itself.
    assert abs(limit - (total - reserve)) < 64 * MIB


def test_limits_that_are_none_are_taken_and_lift_earlier_ones(daemon: Daemon, bridge: Connection) -> None:
    container = Container(bridge, new_id())
    spec = specs.container("/bin/sleep", "60")
    # What a host sends with every container: a quota of -1 where none is wanted.
    spec["linux"]["resources"] |= {
        "cpu": {"shares": 512, "quota": -1, "period": 100000},
        "memory": {"limit": -1, "swap": -1},
        "pids": {"limit": -1},
    }
    bridge.create(container.id, spec)
    container.init()
    endless = quota_of(daemon, container.id)
    for cpu in ({"quota": -1}, {"quota": -1, "period": 50000, "shares": 256}):
        limited = {"cpu": {"quota": 20000, "period": 100000}, "pids": {"limit": 9}}
        bridge.modify(container.id, "ContainerConstraints", "Update", {"Linux": limited})
        assert quota_of(daemon, container.id) == "20000"
        none = {"cpu": cpu, "memory": {"limit": -1}, "pids": {"limit": -1}}
        bridge.modify(container.id, "ContainerConstraints", "Update", {"Linux": none})
        assert quota_of(daemon, container.id) == endless
        # Nor does the old one come back with another change.
        bridge.modify(container.id, "ContainerConstraints", "Update", {"Linux": {"cpu": {"shares": 1024}}})
        assert quota_of(daemon, container.id) == endless
    container.kill()
    bridge.wait_for_notification(container.id)
    container.delete()


def quota_of(daemon: Daemon, container_id: str) -> str:
    below = f"{daemon.pods.lstrip('/')}/{container_id}"
    if machine.cgroup_mode() == "v2":
        return (machine.CGROUPS / below / "cpu.max").read_text().split()[0]
    return (machine.CGROUPS / "cpu" / below / "cpu.cfs_quota_us").read_text().strip()
