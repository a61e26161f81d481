"""Creating the containers of pods: what they get, what is asked, and that failures leave nothing."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unit.host.fakes import Bench, Finished, container_spec
from unit.host.pod_parts import (
    VIRTUAL_ID,
    FakeNetwork,
    NotedMounts,
    sandbox_spec,
    with_network,
    workload_spec,
)
from uvmd.api.containers import Additions
from uvmd.api.transaction import Undo
from uvmd.errors import (
    Failed,
    InvalidState,
    NamespaceNotFound,
    PolicyDenied,
    Refused,
    RuntimeFailed,
    UvmdError,
)
from uvmd.host.operations import context_dir, hardware, planning, pod_sources, sandbox, written
from uvmd.oci.shape.sources import Sources

__all__ = ["context_dir", "hardware", "planning", "pod_sources", "sandbox", "written"]

HOST_NETWORK = "io.microsoft.virtualmachine.lcow.hostnetwork"


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> NotedMounts:
    return NotedMounts().install(monkeypatch)


@pytest.fixture
def pod(bench: Bench, noted: NotedMounts) -> Bench:
    """A bench with the pod s1."""
    bench.create("s1", sandbox_spec())
    bench.gate.asked.clear()
    return bench


def modes(top: Path) -> dict[str, str]:
    return {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in top.iterdir()}


# What they get


def test_a_sandbox_has_files_directories_mounts_and_a_cgroup(bench: Bench, noted: NotedMounts) -> None:
    bench.create("s1", sandbox_spec())
    root = bench.bundle("s1")
    assert modes(root) == {
        "config.json": "0o600", "hostname": "0o644", "hosts": "0o644", "resolv.conf": "0o644",
        "logs": "0o755", "sandboxMounts": "0o755", "sandboxTmpfsMounts": "0o755", "hugepages": "0o755",
    }  # fmt: skip
    assert (root / "hostname").read_text() == "pod\n"
    assert noted.targets == [
        f"{root}/{name}" for name in ("sandboxMounts", "sandboxTmpfsMounts", "hugepages")
    ]
    assert (bench.cgroup_top / "pods" / "s1").is_dir()
    config = bench.config("s1")
    assert config["linux"]["cgroupsPath"] == "/pods/s1/s1"
    assert "mounts" not in config, "the files are for its workloads"


def test_a_workload_has_the_files_of_its_pod_and_places_of_its_own_for_sources(
    pod: Bench, noted: NotedMounts
) -> None:
    before = list(noted.targets)
    pod.create("w1", workload_spec(sources=["sandbox:///a/b", "uvm:///"]))
    root = pod.bundle("s1")
    config = pod.config("w1")
    assert [mount["source"] for mount in config["mounts"]] == [
        f"{pod.run_dir}/containers/w1/mounts/0",
        "/",
        *(f"{root}/{name}" for name in ("hostname", "hosts", "resolv.conf")),
    ]
    assert config["linux"]["cgroupsPath"] == "/pods/s1/w1"
    assert config["linux"]["rootfsPropagation"] == "rslave"
    assert stat.S_IMODE((root / "sandboxMounts/a/b").stat().st_mode) == 0o777
    assert noted.targets == before, "the places are gone once the runtime has them"
    assert os.listdir(pod.run_dir / "containers" / "w1") == []
    (asked,) = pod.gate.asked
    assert asked[1]["mounts"][0]["source"] == f"{root}/sandboxMounts/a/b", "the policy sees the pod's own"
    assert asked[1]["sandboxDir"] == "/run/gcs/c/s1/sandboxMounts"


def test_a_standalone_container_gets_its_own_files(bench: Bench) -> None:
    bench.create("c1", container_spec(hostname="box", root={"path": "rootfs", "readonly": True}))
    root = bench.bundle("c1")
    assert modes(root) == {name: "0o644" for name in ("hostname", "hosts", "resolv.conf")} | {
        "config.json": "0o600"
    }
    assert [mount["options"] for mount in bench.config()["mounts"]] == [["bind", "ro"]] * 3


def test_a_virtual_pods_directory_is_beside_its_bundles(bench: Bench, noted: NotedMounts) -> None:
    bench.create("v1", sandbox_spec(annotations={VIRTUAL_ID: "v1"}))
    root = bench.roots / "virtual-pods" / "v1"
    assert (root / "hostname").read_text() == "pod\n"
    assert sorted(modes(bench.bundle("v1"))) == ["config.json"]
    bench.create("w1", workload_spec("elsewhere", ["sandbox://x"], {VIRTUAL_ID: "v1"}))
    assert (root / "sandboxMounts/x").is_dir()
    assert bench.config("w1")["linux"]["cgroupsPath"] == "/pods/v1/w1"


def test_the_policy_is_told_of_the_pods_files_before_it_is_asked(bench: Bench, noted: NotedMounts) -> None:
    bench.gate.denied.add("create_container")
    with pytest.raises(PolicyDenied):
        bench.create("s1", sandbox_spec())
    assert [mount["destination"] for mount in bench.gate.default_mounts] == [
        "/etc/hostname", "/etc/hosts", "/etc/resolv.conf",
    ]  # fmt: skip
    assert bench.gate.asked[0][1]["isSandboxContainer"] is True


def test_the_security_context_is_made_in_the_root_after_the_policy_has_kept_variables(bench: Bench) -> None:
    bench.gate.context = {"reference-info-base64": "cmVm"}
    root = bench.tmp / "root"
    root.mkdir()
    bench.create("c1", container_spec(root={"path": str(root)}))
    (directory,) = root.iterdir()
    assert modes(root) == {directory.name: "0o755"}
    assert modes(directory) == {"reference-info-base64": "0o644"}
    assert bench.config()["process"]["env"] == ["A=1", f"UVM_SECURITY_CONTEXT_DIR=/{directory.name}"]
    assert bench.gate.asked[0][1]["envList"] == ["A=1"]


@pytest.mark.parametrize(
    ("file", "step"),
    [
        ("reference-info-base64", "write UVM reference info"),
        ("transparent-reference-info-base64", "write UVM hash envelope reference info"),
        ("tcb-reference-info-base64", "write TCB reference info"),
    ],
)
def test_a_file_of_the_security_context_that_cannot_be_written_is_named(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, file: str, step: str
) -> None:
    def full(fd: int, content: bytes) -> None:
        os.close(fd)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(context_dir, "write_all", full)
    bench.gate.context = {file: "cmVm"}
    root = bench.tmp / "root"
    root.mkdir()
    text = f"^failed to write security context dir: failed to {step}: .*: No space left"
    with pytest.raises(Failed, match=text):
        bench.create("c1", container_spec(root={"path": str(root)}))
    assert list(root.iterdir()) == []


def test_a_root_that_is_not_there_has_no_security_context(bench: Bench) -> None:
    bench.gate.context = {"reference-info-base64": "cmVm"}
    with pytest.raises(Failed, match=r"failed to create security context directory: .*: No such file"):
        bench.create("c1", container_spec(root={"path": f"{bench.tmp}/missing"}))


# Network


def test_a_sandbox_gets_its_namespaces_names_and_adapters(bench: Bench, noted: NotedMounts) -> None:
    network = with_network(bench, "ns-1")
    bench.create("s1", sandbox_spec("NS-1"))
    assert network.attached == {"ns-1": bench.monitor.last_pid}
    assert (bench.bundle("s1") / "resolv.conf").read_text() == "search a.b\nnameserver 10.0.0.1\n"
    bench.create("w1", workload_spec())
    assert len(network.attached) == 1, "a workload is in its sandbox's network"


def test_a_sandbox_of_an_unknown_namespace_is_refused(bench: Bench, noted: NotedMounts) -> None:
    for _ in range(2):
        with bench.nothing_changes(), pytest.raises(NamespaceNotFound, match="ns-2"):
            bench.create("s1", sandbox_spec("NS-2"))
        with_network(bench, "ns-1")


def test_a_standalone_container_may_be_first_in_its_namespace(bench: Bench) -> None:
    network = with_network(bench)
    bench.create("c1")
    assert network.attached == {"x": bench.monitor.last_pid}
    bench.create("c2", container_spec(windows={}))
    bench.create("c3", container_spec(windows={"network": {}}))
    assert list(network.attached) == ["x"], "no id is no namespace, and not one that all share"


def test_the_vms_network_is_asked_for_and_left_where_it_is(bench: Bench, noted: NotedMounts) -> None:
    network = with_network(bench, "ns-1")
    namespaces = {"namespaces": [{"type": "network"}, {"type": "mount"}]}
    annotations = {HOST_NETWORK: "true"}
    bench.create("s1", sandbox_spec("ns-1", annotations, linux=namespaces))
    assert network.attached == {"ns-1": 0}
    bench.create("w1", workload_spec(linux=namespaces))
    for container_id in ("s1", "w1"):
        assert bench.config(container_id)["linux"]["namespaces"] == [{"type": "mount"}]
    assert [point for point, _ in bench.gate.asked] == ["create_container", "host_network"] * 2
    bench.gate.denied.add("host_network")
    with bench.nothing_changes(), pytest.raises(PolicyDenied, match=r"^no$"):
        bench.create("w2", workload_spec(linux=namespaces))


# Shapers


class Adding:
    def __init__(self, *found: Additions | Exception) -> None:
        self.found = list(found)
        self.requests: list[Any] = []

    def additions(self, request: Any) -> Additions:
        self.requests.append(request)
        request.spec["process"]["args"] = ["changed"]
        found = self.found.pop(0) if len(self.found) > 1 else self.found[0]
        if isinstance(found, Exception):
            raise found
        return found


def with_shapers(bench: Bench, **shapers: Adding) -> None:
    bench.shapers = {name: lambda made=made: made for name, made in shapers.items()}
    bench.ctx = bench.fresh_context()


def test_additions_are_in_the_policys_input_and_in_the_container(pod: Bench) -> None:
    lamp = {"path": "/dev/lamp", "type": "c", "major": 240, "minor": 7}
    shaper = Adding(Additions(({"destination": "/x", "type": "tmpfs"},), (lamp,), {"LAMP": "1"}))
    with_shapers(pod, lamp=shaper)
    pod.create("c1")
    (asked,) = pod.gate.asked
    assert asked[1]["devices"][0]["path"] == "/dev/lamp"
    assert asked[1]["mounts"][-1]["destination"] == "/x"
    assert asked[1]["envList"] == ["A=1", "LAMP=1"]
    config = pod.config()
    assert config["linux"]["devices"] == [lamp]
    assert config["process"]["args"] == ["/bin/true"], "a shaper works on a copy"
    assert shaper.requests[0].sandbox_id == "c1"


@pytest.mark.parametrize(
    ("found", "error"),
    [
        ((Refused("no lamp"),), Refused),
        ((KeyError("secret"),), Failed),
        ((Additions(({"destination": "/etc/hosts"},)),), Refused),
    ],
)
def test_a_shaper_that_fails_or_clashes_refuses_the_container(
    bench: Bench, found: tuple[Any, ...], error: type[UvmdError]
) -> None:
    with_shapers(bench, lamp=Adding(*found))
    with bench.nothing_changes(), pytest.raises(error) as caught:
        bench.create()
    assert "secret" not in str(caught.value)
    assert bench.gate.asked == []


# What cannot be


def test_pods_and_standalone_containers_do_not_share_an_id(bench: Bench, noted: NotedMounts) -> None:
    bench.create("c1")
    with bench.nothing_changes(), pytest.raises(Refused, match="c1"):
        bench.create("s1", sandbox_spec(annotations={VIRTUAL_ID: "c1"}))
    bench.create("s1", sandbox_spec(annotations={VIRTUAL_ID: "v1"}))
    with bench.nothing_changes(), pytest.raises(Refused, match="v1"):
        bench.create("v1")


def test_a_pod_that_is_going_takes_no_workload(pod: Bench) -> None:
    pod.ctx.pods.begin_close("s1")
    with pod.nothing_changes(), pytest.raises(InvalidState):
        pod.create("w1", workload_spec())


@pytest.mark.parametrize("pod_id", ["../x", "a/b", "", "-x"])
def test_a_pods_id_becomes_part_of_paths(bench: Bench, pod_id: str) -> None:
    with bench.nothing_changes(), pytest.raises(Refused):
        bench.create("w1", workload_spec(pod_id))


def test_a_strict_vm_wants_ids_of_64_digits_for_pods_too(bench: Bench) -> None:
    bench.gate.strict = True
    with bench.nothing_changes(), pytest.raises(Refused, match="invalid sandbox id"):
        bench.create("a" * 64, workload_spec("s1"))
    with bench.nothing_changes(), pytest.raises(Refused, match="invalid virtual pod id"):
        bench.create("a" * 64, workload_spec("s1", annotations={VIRTUAL_ID: "v1"}))


def test_a_symlink_that_a_container_planted_is_not_followed(pod: Bench, tmp_path: Path) -> None:
    (pod.bundle("s1") / "sandboxMounts" / "trap").symlink_to(tmp_path)
    for source in ("sandbox://trap", "sandbox://trap/x"):
        with pod.nothing_changes(), pytest.raises(Failed):
            pod.create("w1", workload_spec(sources=[source]))


def test_a_source_that_is_a_pipe_is_refused(pod: Bench) -> None:
    os.mkfifo(pod.bundle("s1") / "sandboxMounts" / "pipe")
    with pod.nothing_changes(), pytest.raises(Refused, match="neither"):
        pod.create("w1", workload_spec(sources=["sandbox://pipe"]))


def test_a_strict_vms_other_sources_are_opened_without_links_and_bound(
    bench: Bench, noted: NotedMounts, tmp_path: Path
) -> None:
    """What a plan of a strict VM names, whatever its mounts are of."""
    bench.create("c1", container_spec())
    container = bench.ctx.registry.get("c1")
    others = ("/dev/null", str(bench.roots), "/dev/null")
    made = pod_sources.make(bench.ctx, container, Sources(others=others), Undo())
    staged = f"{bench.run_dir}/containers/c1/mounts"
    assert made == {"/dev/null": f"{staged}/0", str(bench.roots): f"{staged}/1"}
    assert noted.targets[-2:] == [f"{staged}/0", f"{staged}/1"]
    for missing, number in ((str(tmp_path / "none"), errno.ENOENT), ("/proc/self/root", errno.ELOOP)):
        with pytest.raises(OSError, match="mount source") as caught:
            pod_sources.make(bench.ctx, container, Sources(others=(missing,)), Undo())
        assert caught.value.errno == number
    pod_sources.release(bench.ctx, container)
    assert not os.path.exists(staged)


# Rollback


class Faults:
    """Lets the n-th of all the calls fail that change something."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, noted: NotedMounts, bench: Bench) -> None:
        self.left = -1
        self.failed = ""
        for owner, names in (
            (os, ("mkdir", "fchmod", "rename", "makedirs")),
            (noted, ("mount", "bind")),
            (type(bench.ctx.journal), ("save",)),
            (type(bench.ctx.cgroups), ("ensure_group",)),
            (bench.monitor, ("open_slot", "run")),
        ):
            for name in names:
                monkeypatch.setattr(owner, name, self._wrap(name, getattr(owner, name)))
        noted.install(monkeypatch)

    def _wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            # makedirs looks only after a failed mkdir whether the directory is there.
            if name == "mkdir" and not options and os.path.isdir(arguments[0]):
                return function(*arguments)
            self.left -= 1
            if self.left == 0:
                self.failed = name
                raise OSError(28, "No space left on device")
            return function(*arguments, **options)

        return call


CASES: dict[str, Callable[[], tuple[str, dict[str, Any]]]] = {
    "standalone": lambda: ("c1", container_spec(hostname="box")),
    "sandbox": lambda: ("s2", sandbox_spec()),
    "virtual sandbox": lambda: ("v1", sandbox_spec(annotations={VIRTUAL_ID: "v1"})),
    "workload": lambda: (
        "w1",
        workload_spec(sources=["sandbox://a/b", "sandbox-tmp://c", "hugepages://2M/x"]),
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("existing", [False, True])
def test_whatever_step_fails_everything_is_as_before(
    pod: Bench, noted: NotedMounts, monkeypatch: pytest.MonkeyPatch, case: str, existing: bool
) -> None:
    container_id, spec = CASES[case]()
    pod.gate.context = {"reference-info-base64": "x"}
    (pod.tmp / "root").mkdir()
    spec["root"] = {"path": str(pod.tmp / "root")}
    if existing:
        pod.bundle(container_id).mkdir()
        for name in ("config.json", "hosts"):
            (pod.bundle(container_id) / name).write_text("theirs")
    faults, seen = Faults(monkeypatch, noted, pod), []
    for number in itertools.count(1):
        before = (pod.state(), list(noted.targets), os.listdir(pod.tmp / "root"))
        faults.left, faults.failed = number, ""
        try:
            pod.create(container_id, spec)
        except (Failed, RuntimeFailed):
            faults.left = -1
            assert (pod.state(), noted.targets, os.listdir(pod.tmp / "root")) == before, faults.failed
            if existing:
                assert (pod.bundle(container_id) / "config.json").read_text() == "theirs"
            seen.append(faults.failed)
            continue
        assert not faults.failed, f"{faults.failed} failed, and the create did not"
        break
    assert {"mkdir", "save", "open_slot", "run"} <= set(seen)
    assert pod.gate.degraded is None


@pytest.mark.parametrize("failing", ["attach", "dns", "exists"])
@pytest.mark.parametrize("error", [OSError(19, "No such device", "eth0"), ValueError("odd"), Refused("full")])
def test_a_network_that_fails_leaves_nothing(
    bench: Bench, noted: NotedMounts, failing: str, error: Exception
) -> None:
    network = with_network(bench, "ns-1")
    network.failures[failing] = error
    with bench.nothing_changes(), pytest.raises(UvmdError):
        bench.create("s1", sandbox_spec("ns-1"))
    assert (network.attached, noted.targets) == ({}, [])
    if failing == "attach":
        assert "--force" in bench.monitor.arguments("runtime delete")[0]["argv"]


def test_a_journal_that_cannot_be_written_at_the_end_takes_the_network_back(
    bench: Bench, noted: NotedMounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    network: FakeNetwork = with_network(bench, "ns-1")
    save = type(bench.ctx.journal).save

    def failing(journal: Any, container: Any, *, state: Any = None, doing: str = "") -> None:
        if state is not None:
            raise OSError(28, "No space left on device")
        save(journal, container, state=state, doing=doing)

    monkeypatch.setattr(type(bench.ctx.journal), "save", failing)
    with bench.nothing_changes(), pytest.raises(Failed):
        bench.create("s1", sandbox_spec("ns-1"))
    assert (network.attached, noted.targets) == ({}, [])


def test_limits_that_the_kernel_refuses_leave_nothing(bench: Bench, noted: NotedMounts) -> None:
    linux = {"namespaces": [{"type": "mount"}], "resources": {"pids": {"limit": 5}}}
    spec = sandbox_spec(linux=linux)
    with bench.nothing_changes(), pytest.raises(Failed, match=r"pids\.max"):
        bench.create("s1", spec)  # the directory that stands for a cgroup has no such file
    assert noted.targets == []


def test_a_runtime_that_fails_leaves_the_pod_as_it_was(pod: Bench, noted: NotedMounts) -> None:
    before = list(noted.targets)
    pod.monitor.outcomes["runtime create"] = (Finished(1), '{"level":"error","msg":"boom"}\n')
    with pod.nothing_changes(), pytest.raises(RuntimeFailed, match="boom"):
        pod.create("w1", workload_spec(sources=["sandbox://new", "hugepages://2M"]))
    assert noted.targets == before
