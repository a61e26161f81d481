"""The namespaces of a strict VM's containers: their own, their pod's, and if asked for the VM's network."""

from __future__ import annotations

from typing import Any

import pytest

from unit.host.fakes import Bench
from unit.host.pod_parts import NotedMounts, sandbox_spec, workload_spec
from uvmd.errors import Failed, PolicyDenied, Refused
from uvmd.host.containers import Container, State
from uvmd.host.operations import joined, places
from uvmd.linux import proc
from uvmd.oci.role import Kind, Role

ALL = ("pid", "ipc", "uts", "mount", "network")
FILES = {"network": "net"}
SANDBOX, WORKLOAD, STRANGER = "a" * 64, "b" * 64, "c" * 64


class Vm:
    """A strict VM with a pod, and who of its processes is in which of the VM's namespaces."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bench = bench
        self.shared: set[tuple[int, str]] = set()
        NotedMounts().install(monkeypatch)
        # Paths are another test's; those of this one are not /run/gcs/c.
        monkeypatch.setattr(places, "check_strict_places", lambda *given: None)
        monkeypatch.setattr(proc, "shares_namespace", lambda pid, name: (pid, name) in self.shared)
        bench.gate.strict = True
        bench.create(SANDBOX, sandbox_spec(linux=linux()))
        bench.gate.asked.clear()

    def pid(self, container_id: str = SANDBOX) -> int:
        init = self.bench.ctx.registry.get(container_id).init
        assert init is not None
        return init.pid

    def workload(self, *namespaces: dict[str, str], **changes: Any) -> None:
        spec = workload_spec(SANDBOX, linux={"namespaces": list(namespaces)}, **changes)
        self.bench.create(WORKLOAD, spec)

    def points(self) -> list[str]:
        return [point for point, _ in self.bench.gate.asked]


def linux(*without: str) -> dict[str, Any]:
    return {"namespaces": own(*without)}


def own(*without: str) -> list[dict[str, str]]:
    return [{"type": kind} for kind in ALL if kind not in without]


def of(pid: int, *kinds: str) -> list[dict[str, str]]:
    return [{"type": kind, "path": f"/proc/{pid}/ns/{FILES.get(kind, kind)}"} for kind in kinds]


@pytest.fixture
def vm(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Vm:
    return Vm(bench, monkeypatch)


def test_what_hosts_send_is_taken_without_a_further_question(vm: Vm) -> None:
    # As containerd does it: the pid namespace too, unless the pod says that each has its own.
    vm.workload({"type": "mount"}, *of(vm.pid(), "pid", "ipc", "uts", "network"))
    assert vm.points() == ["create_container"]
    assert vm.bench.config(WORKLOAD)["linux"]["namespaces"][-1]["path"] == f"/proc/{vm.pid()}/ns/net"


@pytest.mark.parametrize("kind", ["pid", "ipc", "uts"])
def test_a_container_without_a_namespace_that_hosts_always_send_is_refused(vm: Vm, kind: str) -> None:
    with vm.bench.nothing_changes(), pytest.raises(Refused, match=f"needs a {kind} namespace"):
        vm.workload(*own(kind))
    assert vm.points() == []
    vm.bench.gate.strict = False
    vm.workload(*own(kind))


@pytest.mark.parametrize("who", ["sandbox", "workload", "standalone"])
def test_without_a_network_of_its_own_a_container_asks_for_the_vms(vm: Vm, who: str) -> None:
    specs = {
        "sandbox": sandbox_spec(linux=linux("network")),
        "workload": workload_spec(SANDBOX, linux=linux("network")),
        "standalone": {**workload_spec(linux=linux("network")), "annotations": {}},
    }
    vm.bench.gate.denied.add("host_network")
    with vm.bench.nothing_changes(), pytest.raises(PolicyDenied, match=r"^no$"):
        vm.bench.create(WORKLOAD, specs[who])
    assert vm.points() == ["create_container", "host_network"]
    vm.bench.gate.denied.clear()
    vm.bench.create(WORKLOAD, specs[who])
    assert vm.points() == ["create_container", "host_network"] * 2


def test_who_joins_one_that_has_the_vms_network_asks_for_it_too(vm: Vm) -> None:
    vm.shared.add((vm.pid(), "net"))
    vm.bench.gate.denied.add("host_network")
    with vm.bench.nothing_changes(), pytest.raises(PolicyDenied):
        vm.workload(*own("network"), *of(vm.pid(), "network"))
    assert vm.points() == ["create_container", "host_network"]


def test_of_two_network_namespaces_the_vms_counts(vm: Vm) -> None:
    vm.shared.add((vm.pid(), "net"))
    vm.workload(*own(), *of(vm.pid(), "network"))
    assert vm.points() == ["create_container", "host_network"]


@pytest.mark.parametrize(
    "path",
    ["/proc/1/ns/KIND", "/proc/self/ns/KIND", "/run/netns/x", "/proc/PID/ns/KIND/", "/proc/PID/ns/mnt",
     "/proc/0PID/ns/KIND", "/proc/PID/task/PID/ns/KIND", "/proc/PID/ns/KIND\n", "/proc/99999999/ns/KIND"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["network", "pid", "ipc", "uts", "cgroup", "time"])
def test_other_paths_are_refused(vm: Vm, kind: str, path: str) -> None:
    path = path.replace("PID", str(vm.pid())).replace("KIND", FILES.get(kind, kind))
    with vm.bench.nothing_changes(), pytest.raises(Refused, match=r"linux\.namespaces"):
        vm.workload(*own(kind), {"type": kind, "path": path})
    assert vm.points() == []


def test_a_namespace_of_another_pod_or_of_one_that_has_ended_is_refused(vm: Vm) -> None:
    other = {**workload_spec(linux=linux()), "annotations": {}}
    vm.bench.create(STRANGER, other)
    stranger = vm.pid(STRANGER)
    with vm.bench.nothing_changes(), pytest.raises(Refused, match="its pod's"):
        vm.workload(*own("ipc"), *of(stranger, "ipc"))
    # A standalone container has no pod to share with.
    with vm.bench.nothing_changes(), pytest.raises(Refused, match="its pod's"):
        vm.bench.create(WORKLOAD, {**other, "linux": {"namespaces": [*own("ipc"), *of(stranger, "ipc")]}})
    vm.bench.start(SANDBOX)
    pid = vm.pid()
    vm.bench.monitor.end(vm.bench.init_slot(SANDBOX), 0)
    with vm.bench.nothing_changes(), pytest.raises(Refused, match="its pod's"):
        vm.workload(*own("ipc"), *of(pid, "ipc"))


def test_a_pid_that_has_changed_hands_is_nobodys(vm: Vm) -> None:
    init = vm.bench.ctx.registry.get(SANDBOX).init
    assert init is not None
    init.start_time += 1
    with pytest.raises(Refused, match="its pod's"):
        vm.workload(*own("ipc"), *of(init.pid, "ipc"))


def test_what_a_member_has_of_the_vm_from_before_the_policy_is_not_handed_on(vm: Vm) -> None:
    vm.shared.add((vm.pid(), "pid"))
    with vm.bench.nothing_changes(), pytest.raises(Refused, match="the pid namespace is the VM's"):
        vm.workload(*own("pid"), *of(vm.pid(), "pid"))


def test_a_user_namespace_is_refused(vm: Vm) -> None:
    with vm.bench.nothing_changes(), pytest.raises(Refused, match="user namespace"):
        vm.workload(*own(), {"type": "user"})


def test_a_process_that_goes_in_between_is_an_error(vm: Vm, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(pid: int, name: str) -> bool:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(proc, "shares_namespace", gone)
    with vm.bench.nothing_changes(), pytest.raises(Failed, match="No such file"):
        vm.workload(*own("network"), *of(vm.pid(), "network"))


def test_one_that_is_still_being_created_is_no_member_yet() -> None:
    container = Container(WORKLOAD, "", Role(Kind.WORKLOAD, SANDBOX))
    assert not joined._is_init(container, 0)
    container.state = State.CREATED
    assert not joined._is_init(container, 0)
