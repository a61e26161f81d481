"""Many pods at once, and what they leave: nothing."""

from __future__ import annotations

import pytest

from support import specs
from support.containers import new_id
from support.daemon import Daemon
from support.host import CREATE, DELETE, EXECUTE, SHUTDOWN_FORCED, ZERO_GUID, Connection
from support.leaks import Snapshot, assert_nothing_left
from support.pods import bind, pod, sandbox_spec, workload_spec

PODS, WORKLOADS = 50, 2


def all_of(bridge: Connection, requests: list[tuple[int, dict[str, object]]]) -> list[dict[str, object]]:
    """Send everything before the first answer is looked at; every answer must be a success."""
    sent = [bridge.send(type_, {"ActivityId": ZERO_GUID, **body}) for type_, body in requests]
    answers = [bridge.answer(id_, 240) for id_ in sent]
    failed = [answer for answer in answers if answer["Result"]]
    assert not failed, failed[:3]
    return answers


def create_of(bridge: Connection, container_id: str, spec: object) -> tuple[int, dict[str, object]]:
    config = bridge.host.container_config(container_id, spec)
    return CREATE, {"ContainerId": container_id, "ContainerConfig": config}


def start_of(container_id: str) -> tuple[int, dict[str, object]]:
    return EXECUTE, {"ContainerId": container_id, "Settings": {"ProcessParameters": "{}"}}


@pytest.mark.slow
def test_fifty_pods_of_three_containers_come_and_go_side_by_side(daemon: Daemon, bridge: Connection) -> None:
    with pod(bridge) as warm:
        warm.run("true")
    before = Snapshot.take(daemon)
    pods = {new_id(): [new_id() for _ in range(WORKLOADS)] for _ in range(PODS)}
    all_of(bridge, [create_of(bridge, pod_id, sandbox_spec(pod_id)) for pod_id in pods])
    started = all_of(bridge, [start_of(pod_id) for pod_id in pods])
    pids = {pod_id: answer["ProcessId"] for pod_id, answer in zip(pods, started, strict=True)}
    shared = [bind("/mnt", "sandbox:///data")]
    workloads = [(pod_id, workload) for pod_id, members in pods.items() for workload in members]
    specs_ = {
        workload: workload_spec(
            pod_id, "/bin/sleep", "600", sandbox_pid=int(str(pids[pod_id])), mounts=shared
        )
        for pod_id, workload in workloads
    }
    all_of(bridge, [create_of(bridge, workload, spec) for workload, spec in specs_.items()])
    all_of(bridge, [start_of(workload) for workload in specs_])
    probe = bridge.execute(workloads[7][1], specs.process("/bin/ls", "/mnt"), stdout=True)
    assert probe.wait() == 0
    everyone = [*specs_, *pods]
    all_of(bridge, [(SHUTDOWN_FORCED, {"ContainerId": one}) for one in everyone])
    for one in everyone:
        bridge.wait_for_notification(one, 60)
    # A pod's sandbox goes after its workloads, the pods side by side.
    all_of(bridge, [(DELETE, {"ContainerId": one}) for one in specs_])
    all_of(bridge, [(DELETE, {"ContainerId": one}) for one in pods])
    assert_nothing_left(daemon, before, timeout_s=20)
