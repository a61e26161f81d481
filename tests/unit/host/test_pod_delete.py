"""Deleting the containers of pods, and what a new daemon does about them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unit.host.fakes import Bench
from unit.host.pod_parts import VIRTUAL_ID, NotedMounts, end, sandbox_spec, with_network, workload_spec
from unit.host.rebirth import reborn
from uvmd.errors import ContainerNotFound, Failed, InUse, Refused
from uvmd.host.containers import State
from uvmd.host.operations import constraints, delete, end_all


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> NotedMounts:
    return NotedMounts().install(monkeypatch)


EMPTY = ["run/console", "run/containers", "run/journal"]


def test_a_pod_goes_whole_and_its_id_is_free(bench: Bench, noted: NotedMounts) -> None:
    network = with_network(bench, "ns-1")
    for _ in range(2):
        bench.create("s1", sandbox_spec("ns-1"))
        bench.create("w1", workload_spec(sources=["sandbox://a", "hugepages://2M/x"]))
        noted.targets.append(f"{bench.bundle('s1')}/sandboxMounts/a/of-the-host")
        for container_id in ("w1", "s1"):
            end(bench, container_id)
            delete.delete(bench.ctx, container_id)
        assert bench.files() == EMPTY
        assert (noted.targets, network.attached) == ([], {})
        assert os.listdir(bench.cgroup_top / "pods") == []
        assert bench.ctx.pods.pods() == []


def test_a_sandbox_is_not_deleted_before_its_workloads(bench: Bench, noted: NotedMounts) -> None:
    bench.create("s1", sandbox_spec())
    bench.create("w1", workload_spec())
    end(bench, "s1")
    with bench.nothing_changes(), pytest.raises(InUse, match="w1"):
        delete.delete(bench.ctx, "s1")
    bench.create("w2", workload_spec())  # it goes on as it was
    for container_id in ("w2", "w1", "s1"):
        delete.delete(bench.ctx, container_id)
    assert bench.files() == EMPTY


def test_a_running_sandbox_stays_open(bench: Bench, noted: NotedMounts) -> None:
    bench.create("s1", sandbox_spec())
    bench.start("s1")
    bench.gate.strict = True
    with pytest.raises(Refused):
        delete.delete(bench.ctx, "s1")
    bench.gate.strict = False
    bench.create("w1", workload_spec())


def test_a_virtual_pods_directory_goes_and_the_one_above_when_it_is_empty(
    bench: Bench, noted: NotedMounts
) -> None:
    for pod_id in ("v1", "v2"):
        bench.create(pod_id, sandbox_spec(annotations={VIRTUAL_ID: pod_id}))
    delete.delete(bench.ctx, "v1")
    assert os.listdir(bench.roots / "virtual-pods") == ["v2"]
    delete.delete(bench.ctx, "v2")
    assert bench.files() == EMPTY


def test_a_pods_folder_of_the_newer_layout_goes_with_its_sandbox(
    bench: Bench, noted: NotedMounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delete, "_PODS", str(bench.roots))
    for folder in ("p1", "p2"):
        (bench.roots / folder).mkdir()
    (bench.roots / "p2" / "kept").write_text("")
    monkeypatch.setattr(
        bench, "bundle", lambda container_id: bench.roots / f"p{container_id[1]}" / container_id
    )
    for pod_id in ("s1", "s2"):
        bench.create(pod_id, sandbox_spec())
        delete.delete(bench.ctx, pod_id)
    assert os.listdir(bench.roots) == ["p2"]


def test_a_mount_that_is_busy_is_detached(bench: Bench, noted: NotedMounts) -> None:
    bench.create("s1", sandbox_spec())
    noted.busy.add(f"{bench.bundle('s1')}/hugepages")
    delete.delete(bench.ctx, "s1")
    assert noted.targets == []


def test_what_fails_is_said_and_the_rest_goes(bench: Bench, noted: NotedMounts) -> None:
    network = with_network(bench, "ns-1")
    bench.create("s1", sandbox_spec("ns-1"))
    network.failures["detach"] = RuntimeError("no")
    with pytest.raises(Failed, match="detach: no"):
        delete.delete(bench.ctx, "s1")
    assert bench.files() == EMPTY
    with pytest.raises(ContainerNotFound):
        delete.delete(bench.ctx, "s1")


def test_a_cgroup_that_does_not_go_yet_is_tried_again(
    bench: Bench, noted: NotedMounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.create("s1", sandbox_spec())
    tried, remove = [], type(bench.ctx.cgroups).remove

    def busy(cgroups: object, path: str) -> None:
        tried.append(path)
        if len(tried) < 3:
            raise OSError(16, "Device or resource busy", path)
        remove(bench.ctx.cgroups, path)

    monkeypatch.setattr(type(bench.ctx.cgroups), "remove", busy)
    delete.delete(bench.ctx, "s1")
    assert tried[-1] == "/pods/s1"
    assert os.listdir(bench.cgroup_top / "pods") == []


def test_the_security_context_goes_with_its_container(bench: Bench) -> None:
    bench.gate.context = {"reference-info-base64": "x"}
    root = bench.tmp / "root"
    (root / "etc").mkdir(parents=True)
    bench.create(
        "c1",
        {**sandbox_spec(annotations={"io.kubernetes.cri.container-type": ""}), "root": {"path": str(root)}},
    )
    assert len(os.listdir(root)) == 2
    delete.delete(bench.ctx, "c1")
    assert os.listdir(root) == ["etc"]


def test_the_end_of_a_daemon_takes_sandboxes_last(bench: Bench, noted: NotedMounts) -> None:
    bench.create("a-sandbox", sandbox_spec())
    bench.create("w1", workload_spec("a-sandbox"))
    end_all.end_all(bench.ctx)
    deleted = [call["argv"][-1] for call in bench.monitor.arguments("runtime delete")]
    assert deleted == ["w1", "a-sandbox"]
    assert (bench.files(), noted.targets) == (EMPTY, [])


# Limits


def test_a_sandboxs_new_limits_are_its_pods(bench: Bench, noted: NotedMounts) -> None:
    bench.create("s1", sandbox_spec())
    file = bench.cgroup_top / "pods" / "s1" / "pids.max"
    file.write_text("max")
    constraints.update(bench.ctx, "s1", {"pids": {"limit": 5}})
    assert file.read_text() == "5ax"  # the kernel's files are cut off, plain ones are not
    assert len(bench.monitor.arguments("runtime update")) == 1


def test_limits_that_the_runtime_refuses_are_taken_back_from_the_pod(
    bench: Bench, noted: NotedMounts
) -> None:
    bench.create("s1", sandbox_spec())
    file = bench.cgroup_top / "pods" / "s1" / "pids.max"
    file.write_text("7")
    bench.monitor.failures["runtime update"] = OSError(5, "Input/output error")
    with pytest.raises(Failed):
        constraints.update(bench.ctx, "s1", {"pids": {"limit": 5}})
    assert file.read_text() == "7"


def test_limits_that_do_not_fit_the_pod_yet_come_after_its_sandboxs(bench: Bench, noted: NotedMounts) -> None:
    bench.create("s1", sandbox_spec())
    with pytest.raises(Failed, match=r"/pods/s1: .*pids\.max"):
        constraints.update(bench.ctx, "s1", {"pids": {"limit": 5}})  # there is no such file here
    assert len(bench.monitor.arguments("runtime update")) == 1


# A new daemon


def test_a_new_daemon_knows_the_pods(bench: Bench, noted: NotedMounts) -> None:
    bench.create("s1", sandbox_spec())
    bench.create("w1", workload_spec())
    reborn(bench)
    with pytest.raises(InUse):
        delete.delete(bench.ctx, "s1")
    bench.create("w2", workload_spec(sources=["sandbox://a"]))
    assert bench.ctx.registry.get("w2").sandbox_root == str(bench.bundle("s1"))


@pytest.mark.parametrize("virtual", [False, True])
@pytest.mark.parametrize("existing", [False, True])
def test_an_interrupted_sandbox_is_undone(
    bench: Bench, noted: NotedMounts, virtual: bool, existing: bool
) -> None:
    network = with_network(bench, "ns-1")
    if existing:
        (bench.bundle("s1") / "logs").mkdir(parents=True)
        (bench.bundle("s1") / "hosts").write_text("theirs")
    before = bench.files()
    bench.create("s1", sandbox_spec("ns-1", {VIRTUAL_ID: "s1"} if virtual else None))
    bench.ctx.journal.save(bench.ctx.registry.get("s1"), state=State.CREATING)
    reborn(bench)
    assert bench.files() == before
    assert (noted.targets, network.attached, bench.ctx.pods.pods()) == ([], {}, [])
    assert os.listdir(bench.cgroup_top / "pods") == []
    if existing:
        assert (bench.bundle("s1") / "hosts").read_text() == "theirs"
    assert bench.gate.degraded is None


def test_an_interrupted_workload_leaves_its_pod(bench: Bench, noted: NotedMounts) -> None:
    bench.create("s1", sandbox_spec())
    before, mounted = bench.files(), list(noted.targets)
    bench.create("w1", workload_spec(sources=["sandbox://a"]))
    bench.ctx.journal.save(bench.ctx.registry.get("w1"), state=State.CREATING)
    staged = Path(bench.ctx.work_dir("w1")) / "mounts" / "0"
    staged.mkdir(parents=True)
    noted.targets.append(str(staged))
    reborn(bench)
    # The directory in the pod may be another workload's by now; it goes with the pod.
    assert [path for path in bench.files() if not path.endswith("sandboxMounts/a")] == before
    assert noted.targets == mounted
    pod = bench.ctx.pods.find("s1")
    assert pod is not None
    assert pod.members == set()


def test_a_workload_whose_sandbox_is_lost_can_be_deleted(bench: Bench, noted: NotedMounts) -> None:
    bench.create("s1", sandbox_spec())
    bench.create("w1", workload_spec())
    (bench.run_dir / "journal" / "s1.json").write_text("{")
    reborn(bench)
    with pytest.raises(ContainerNotFound):
        delete.delete(bench.ctx, "s1")
    delete.delete(bench.ctx, "w1")
    assert bench.ctx.pods.pods() == []
    assert noted.targets == []
    assert os.listdir(bench.cgroup_top / "pods") == []
