"""The table of pods: who may enter, who may go, what a new daemon finds."""

from __future__ import annotations

import pytest

from uvmd.errors import InUse, InvalidState, Refused
from uvmd.host.pods import Pod, Pods


def pod(pod_id: str = "s1", sandbox_id: str = "s1") -> Pod:
    return Pod(pod_id, sandbox_id, f"/run/{pod_id}", f"/pods/{pod_id}")


@pytest.fixture
def pods() -> Pods:
    table = Pods()
    made = pod()
    table.open(made)
    table.ready(made)
    return table


def test_a_pod_takes_workloads_once_its_sandbox_is_created() -> None:
    table = Pods()
    made = pod()
    with pytest.raises(Refused, match="not known"):
        table.join("s1", "w1")
    table.open(made)
    with pytest.raises(InvalidState, match="being created"):
        table.join("s1", "w1")
    table.ready(made)
    assert table.join("s1", "w1") is made


def test_there_is_one_pod_of_an_id(pods: Pods) -> None:
    with pytest.raises(Refused, match="exists"):
        pods.open(pod())
    pods.close("s1")
    pods.open(pod())


def test_a_pod_with_workloads_cannot_go(pods: Pods) -> None:
    pods.join("s1", "w1")
    with pytest.raises(InUse, match="w1"):
        pods.begin_close("s1")
    pods.leave("s1", "w1")
    pods.begin_close("s1")
    with pytest.raises(InvalidState, match="being removed"):
        pods.join("s1", "w2")
    pods.stay_open("s1")
    pods.join("s1", "w2")


def test_what_is_not_there_is_no_error(pods: Pods) -> None:
    for action in (pods.begin_close, pods.stay_open, pods.close):
        action("none")
    pods.leave("none", "w1")
    pods.leave("s1", "w1")
    assert pods.find("none") is None


@pytest.mark.parametrize("sandbox_first", [True, False])
def test_a_new_daemon_finds_a_pod_and_its_workloads_in_any_order(sandbox_first: bool) -> None:
    table = Pods()
    steps = [lambda: table.restore(pod()), lambda: table.stand_in(pod(sandbox_id=""), "w1")]
    for step in steps if sandbox_first else reversed(steps):
        step()
    found = table.find("s1")
    assert found is not None
    assert (found.sandbox_id, found.members, found.ready) == ("s1", {"w1"}, True)


def test_a_pod_that_lost_its_sandbox_goes_with_its_last_workload() -> None:
    table = Pods()
    table.stand_in(pod(sandbox_id=""), "w1")
    table.stand_in(pod(sandbox_id=""), "w2")
    with pytest.raises(InvalidState):
        table.join("s1", "w3")
    table.leave("s1", "w1")
    assert len(table.pods()) == 1
    table.leave("s1", "w2")
    assert table.pods() == []
