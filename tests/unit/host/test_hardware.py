"""Devices that a specification names: listed, assigned, confidential; disks and paths."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from unit.host.fakes import Bench, container_spec
from unit.host.pod_parts import NotedMounts, sandbox_spec, workload_spec
from uvmd.api.resources import Claim, Kind
from uvmd.errors import DeadlineExceeded, Failed, Refused
from uvmd.host.operations import hardware
from uvmd.linux import devices
from uvmd.linux.devices import DeviceNode

GUID = "0A1B2C3D-0000-1111-2222-333344445555"
LAMP = DeviceNode("/dev/lamp", "c", 240, 7, 0, 5)
PRIVILEGED = "io.microsoft.virtualmachine.lcow.privileged"


class Vm:
    """A Hyper-V machine in a folder: one PCI device, with a node if wanted."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bench, self.sys = bench, bench.tmp / "sys"
        self.nodes: list[DeviceNode] = []
        (self.sys / "bus/vmbus/devices" / GUID.lower() / "pci0001:00" / "0001:00:00.0").mkdir(parents=True)
        settings = bench.ctx.settings
        object.__setattr__(settings, "sys_root", str(self.sys))
        object.__setattr__(settings, "path", str(bench.tmp))
        monkeypatch.setattr(devices, "find_devices", lambda root="/dev": iter(self.nodes))
        monkeypatch.setattr(hardware, "find_devices", lambda root="/dev": iter(self.nodes))
        monkeypatch.setattr(hardware, "_ASSIGNED_S", 0.0)

    @property
    def pci(self) -> Path:
        return self.sys / "bus/vmbus/devices" / GUID.lower() / "pci0001:00" / "0001:00:00.0"

    def add_node(self, node: DeviceNode, below: str = "misc/lamp") -> None:
        """Let the kernel show a node of the PCI device."""
        (self.pci / below).mkdir(parents=True)
        (self.sys / "dev/char").mkdir(parents=True, exist_ok=True)
        (self.sys / f"dev/char/{node.major}:{node.minor}").symlink_to(self.pci / below)
        self.nodes.append(node)


@pytest.fixture
def vm(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Vm:
    NotedMounts().install(monkeypatch)
    bench.create("s1", sandbox_spec())
    bench.gate.asked.clear()
    return Vm(bench, monkeypatch)


def assigned(id_type: str = "vpci-instance-id", name: str = GUID) -> dict[str, Any]:
    return {"devices": [{"id": name, "idType": id_type}]}


@pytest.mark.parametrize("id_type", ["vpci-instance-id", "vpci"])
@pytest.mark.parametrize("kind", ["workload", "standalone"])
def test_an_assigned_device_brings_its_nodes_and_rules(vm: Vm, id_type: str, kind: str) -> None:
    vm.add_node(LAMP)
    vm.nodes.append(DeviceNode("/dev/other", "c", 9, 9, 0, 0))
    spec = workload_spec() if kind == "workload" else container_spec()
    vm.bench.create("c1", {**spec, "windows": assigned(id_type)})
    linux = vm.bench.config()["linux"]
    assert [(device["path"], device["gid"]) for device in linux["devices"]] == [("/dev/lamp", 5)]
    assert linux["resources"]["devices"][-1] == {
        "allow": True, "type": "c", "major": 240, "minor": 7, "access": "rwm",
    }  # fmt: skip
    assert vm.bench.gate.asked[0][1]["devices"] == [], "core's own devices are not the policy's business"


def test_an_unknown_kind_of_device_is_passed_over(vm: Vm, caplog: pytest.LogCaptureFixture) -> None:
    vm.bench.create("c1", {**workload_spec(), "windows": assigned("class")})
    assert "unknown kind" in caplog.text
    # A sandbox gets none at all.
    assert (
        hardware.find_assigned(vm.bench.ctx, vm.bench.ctx.registry.get("s1").role, {}) == hardware.Assigned()
    )


@pytest.mark.parametrize(
    ("name", "error"), [("../../x", Refused), (GUID[:-1] + "6", DeadlineExceeded), (GUID, DeadlineExceeded)]
)
def test_a_device_that_does_not_come_is_an_error(vm: Vm, name: str, error: type[Exception]) -> None:
    with vm.bench.nothing_changes(), pytest.raises(error):
        vm.bench.create("c1", {**workload_spec(), "windows": assigned(name=name)})
    assert vm.bench.gate.asked == []


def test_a_gpu_gets_its_hook_and_a_strict_vm_has_none(vm: Vm) -> None:
    spec = {**workload_spec(), "windows": assigned("gpu")}
    with vm.bench.nothing_changes(), pytest.raises(Failed, match="generichook"):
        vm.bench.create("c1", spec)
    program = vm.bench.tmp / "generichook"
    program.write_text("")
    program.chmod(0o755)
    vm.bench.create("c1", spec)
    (hook,) = vm.bench.config()["hooks"]["createRuntime"]
    assert hook["path"] == str(program)
    assert "--device=0001:00:00.0" in hook["args"]
    vm.bench.gate.strict = True
    with pytest.raises(Refused, match="hook"):
        hardware._with_gpus(vm.bench.ctx, vm.bench.ctx.registry.get("c1"), spec, ("x",))


def test_listed_devices_are_looked_up_and_those_that_lack_refuse(vm: Vm) -> None:
    spec = workload_spec()
    spec["linux"]["devices"] = [{"path": "/dev/null", "type": "b", "major": 9, "minor": 9}]
    vm.bench.create("c1", spec)
    device, rule = (vm.bench.config()["linux"][key] for key in ("devices", "resources"))
    assert (device[0]["type"], device[0]["major"], device[0]["minor"]) == ("c", 1, 3)
    assert rule["devices"][-1]["major"] == 1
    asked = vm.bench.gate.asked[0][1]["devices"]
    assert [(one["type"], one["major"]) for one in asked] == [("b", 9)], "the policy sees the host's words"
    for path in ("/dev/no-such-lamp", str(vm.bench.program), ""):
        spec["linux"]["devices"] = [{"path": path}]
        with vm.bench.nothing_changes(), pytest.raises(Failed, match=r"linux\.devices"):
            vm.bench.create("c2", spec)


def test_a_strict_vm_shows_its_hardware_to_workloads_that_are_not_privileged(
    vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx, container = vm.bench.ctx, vm.bench.ctx.registry.get("s1")
    vm.bench.create("w1", workload_spec())
    workload = ctx.registry.get("w1")
    vm.bench.gate.strict = True
    shown = DeviceNode("/dev/sev-guest", "c", 10, 1, 0, 0)
    monkeypatch.setattr(hardware, "find_device", lambda path: {"/dev/sev-guest": shown}[path])

    def only(path: str) -> DeviceNode:
        if path != "/dev/sev-guest":
            raise OSError(2, "No such file or directory", path)
        return shown

    monkeypatch.setattr(hardware, "find_device", only)
    nothing = hardware.Assigned()
    spec = workload_spec()
    given = hardware.apply(ctx, workload, spec, spec, [], nothing)["linux"]["devices"]
    assert [device["path"] for device in given] == ["/dev/sev-guest"]
    assert hardware.apply(ctx, container, spec, spec, [], nothing) is spec
    privileged = workload_spec(annotations={PRIVILEGED: "true"})
    assert hardware.apply(ctx, workload, privileged, privileged, [], nothing)["linux"]["devices"] == []


def test_confidential_hardware_that_is_not_there_is_only_logged(
    vm: Vm, caplog: pytest.LogCaptureFixture
) -> None:
    assert hardware._confidential(str(vm.bench.tmp)) == []
    assert "ignoring" in caplog.text


def test_what_a_plugin_added_is_not_replaced_by_a_privileged_containers_own(vm: Vm) -> None:
    vm.nodes = [LAMP, DeviceNode("/dev/b", "c", 3, 3, 0, 0)]
    vm.bench.create("w1", workload_spec())
    added = {"path": "/dev/lamp", "type": "c", "major": 1, "minor": 1}
    spec = workload_spec(annotations={PRIVILEGED: "true"})
    spec["linux"]["devices"] = [added]
    container = vm.bench.ctx.registry.get("w1")
    given = hardware.apply(vm.bench.ctx, container, spec, spec, [added], hardware.Assigned())
    assert [device["major"] for device in given["linux"]["devices"]] == [1, 3]


# Disks and paths


def test_a_disk_is_resolved_once(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "disk").symlink_to("/dev/null")
    spec = {
        "mounts": [
            {"destination": "/d", "source": str(tmp_path / "disk"), "options": ["ro"]},
            {"destination": "/e", "source": str(tmp_path / "disk")},
            {"destination": "/f", "source": "/x"},
        ],
        "linux": {},
    }
    shaped = hardware.apply_disks(bench.ctx, spec, ("/d", "/e"))
    assert [mount["source"] for mount in shaped["mounts"]] == ["/dev/null", "/dev/null", "/x"]
    rules = shaped["linux"]["resources"]["devices"]
    assert [(rule["access"], rule["major"], rule["minor"]) for rule in rules] == [("r", 1, 3), ("rwm", 1, 3)]
    assert hardware.apply_disks(bench.ctx, spec, ()) is spec


def test_a_disk_must_be_a_link_to_a_device(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("file")
    for source in ("/dev/null", tmp_path / "link", tmp_path / "none", "a\0b"):
        spec = {"mounts": [{"destination": "/d", "source": str(source)}], "linux": {}}
        with pytest.raises(Failed, match="symlink to a device"):
            hardware.apply_disks(bench.ctx, spec, ("/d",))


def test_a_strict_vm_takes_a_disk_s_link_for_one_only_where_it_was_made(bench: Bench, tmp_path: Path) -> None:
    bench.gate.strict = True
    link = tmp_path / "disk"
    link.symlink_to("/dev/null")
    spec = {"mounts": [{"destination": "/d", "source": str(link)}], "linux": {}}
    table = bench.ctx.mounts.table
    table.change([Claim(str(tmp_path), "/dev/sda", Kind.READ_WRITE)], strict=True)
    with pytest.raises(Refused, match="block device"):
        hardware.apply_disks(bench.ctx, spec, ("/d",))
    table.change([Claim(str(link), "/dev/sdb", Kind.BLOCK_DEVICE)], strict=True)
    assert hardware.apply_disks(bench.ctx, spec, ("/d",))["mounts"][0]["source"] == "/dev/null"


def test_a_path_of_the_vm_must_be_there(tmp_path: Path) -> None:
    hardware.require_paths((str(tmp_path), "/"))
    with pytest.raises(Failed, match="none"):
        hardware.require_paths((str(tmp_path), str(tmp_path / "none")))


def test_the_vms_name_is_what_the_kernel_says() -> None:
    assert hardware.vm_hostname() == os.uname().nodename
