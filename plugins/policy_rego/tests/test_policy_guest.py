"""A confidential pod on a real kernel: disks, overlay, encrypted scratch, under a strict policy.

The policy describes two containers by the hashes of their layers. The host may do what it
says and nothing else; what else it tries is refused and leaves the VM as it was.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import policies
import pytest
from strict_pods import ECHO, Pod, body, delete, fine, modify, reasons, set_policy

from guest.harness.code import ROOTFS
from guest.harness.guest import Guest
from support import disks, rootfs, specs
from support.containers import Container, new_id
from support.host import EXECUTE, MODIFY, NULL_ID, SIGNAL, Connection, code
from uvmd.api.testing.guest.devices import Disk

BASE, TOP = "/run/mounts/scsi/m0", "/run/mounts/scsi/m1"
DISK, PMEM, LAYERS = "MappedVirtualDisk", "VPMemDevice", "CombinedLayers"
PAGE = 2 << 20
SCRATCH_MIB = 512  # xfs takes no less than 300, encryption some for itself


@dataclass
class Strict:
    """A guest with its pod, and what the host knows of it."""

    guest: Guest
    pod: Pod
    hashes: list[str]
    disks: list[Disk]
    folder: Path

    @property
    def bridge(self) -> Connection:
        return self.guest.bridge

    @property
    def scratch(self) -> dict[str, Any]:
        path = f"/run/gcs/c/{self.pod.sandbox}"
        encrypted = {"Encrypted": True, "EnsureFilesystem": True, "Filesystem": "xfs"}
        return {"MountPath": path, "Lun": 2, **encrypted}

    @property
    def base(self) -> dict[str, Any]:
        return {"MountPath": BASE, "Lun": 1, "ReadOnly": True, "Options": ["ro"]}

    @property
    def top(self) -> dict[str, Any]:
        return {"MountPath": TOP, "DeviceNumber": 0}

    def image(self, name: str, content: bytes, page: int = 1) -> Path:
        path = self.folder / name
        path.write_bytes(content.ljust(-(-len(content) // page) * page, b"\0"))
        return path

    def state(self) -> Any:
        """What the kernel holds and the daemon records."""
        look = (
            "cut -d' ' -f1-4 /proc/mounts; dmsetup table; find /run/gcs /run/mounts -xdev 2>/dev/null; true"
        )
        seen = self.guest.sh(look)
        rows = self.bridge.properties(NULL_ID, "uvmd.mounts", "uvmd.ps")
        containers = [(one["id"], one["state"], one["pid"]) for one in rows["uvmd.ps"]["containers"]]
        table = sorted((row["target"], row["source"], row["encrypted"]) for row in rows["uvmd.mounts"])
        return seen, containers, table, rows["uvmd.ps"]["inconsistent"], rows["uvmd.ps"]["processes"]


def layer_of(folder: Path, path: Path, mib: int) -> bytes:
    """A file system as a host's converter makes one of a layer."""
    options = ["-q", "-F", "-b", "4096", "-O", "^has_journal", "-d", folder, path, f"{mib}M"]
    subprocess.run(["mkfs.ext4", *options], check=True, stdin=subprocess.DEVNULL)
    return path.read_bytes()


@pytest.fixture
def strict(fresh_guest: Guest, tmp_path: Path) -> Strict:
    """A guest whose host has set the policy and plugged three disks in; nothing is mounted yet."""
    own = tmp_path / "own"
    (own / "srv").mkdir(parents=True)
    (own / "srv" / "page").write_text("of the top layer\n")
    base, top = layer_of(rootfs.shared(), tmp_path / "base", 16), layer_of(own, tmp_path / "top", 6)
    hashes = [disks.root_digest(base), disks.root_digest(top)]
    vm = Strict(fresh_guest, Pod([TOP, BASE]), hashes, [], tmp_path)
    described = vm.pod.described(hashes)
    set_policy(
        vm.bridge, policies.policy(*described, allow_properties_access=True, allow_runtime_logging=True)
    )
    fresh_guest.add_pmem(vm.image("top.img", disks.layer(top), PAGE), read_only=True)
    vm.disks += [
        fresh_guest.add_disk(vm.image("base.img", disks.layer(base)), lun=1, read_only=True),
        fresh_guest.add_disk(fresh_guest.image("scratch.img", SCRATCH_MIB), lun=2),
    ]
    return vm


def mount_all(vm: Strict) -> None:
    fine(modify(vm.bridge, DISK, "Add", vm.base))
    fine(modify(vm.bridge, PMEM, "Add", vm.top))
    fine(modify(vm.bridge, DISK, "Add", vm.scratch))


def start_all(vm: Strict) -> None:
    for id, spec in vm.pod.both():
        fine(modify(vm.bridge, LAYERS, "Add", vm.pod.overlay(id)))
        fine(vm.pod.create(vm.bridge, id, spec))
        Container(vm.bridge, id).init()


def end_all(vm: Strict) -> None:
    """As hosts do it that delete before they take disks away."""
    for id in (vm.pod.workload, vm.pod.sandbox):
        container = Container(vm.bridge, id)
        assert container.kill() == "S_OK"
        vm.bridge.wait_for_notification(id)
        fine(modify(vm.bridge, LAYERS, "Remove", {"ContainerRootPath": str(vm.pod.root(id))}))
        # Hosts that take disks away first are refused, and the VM goes on: the workload's bundle
        # lies on the scratch disk, the pod's directories are mounts on it.
        refused(vm, DISK, "Remove", vm.scratch, "still in use")
        fine(delete(vm.bridge, id))
    fine(modify(vm.bridge, DISK, "Remove", vm.scratch))
    fine(modify(vm.bridge, PMEM, "Remove", vm.top))
    fine(modify(vm.bridge, DISK, "Remove", vm.base))
    for disk in vm.disks:
        fine(modify(vm.bridge, "SCSIDevice", "Remove", {"Controller": 0, "Lun": 1 + vm.disks.index(disk)}))
        disk.remove()


def pid_of(vm: Strict, id: str) -> int:
    rows = vm.bridge.properties(NULL_ID, "uvmd.ps")["uvmd.ps"]["containers"]
    return next(one["pid"] for one in rows if one["id"] == id)


def test_a_pod_lives_under_its_policy_and_nothing_is_left(strict: Strict) -> None:
    vm, before = strict, strict.state()
    mount_all(vm)
    kinds = vm.guest.sh("dmsetup table | cut -d' ' -f4,5")
    assert kinds.count("verity") == 2
    assert "crypt" in kinds
    start_all(vm)
    container = Container(vm.bridge, vm.pod.workload)
    exec_ = container.exec(*ECHO, stdout=True)
    assert (exec_.wait(), exec_.stdout.read_all()) == (0, b"hello\n")
    root = vm.pod.root(vm.pod.workload)
    assert vm.guest.read(f"{root}/srv/page") == "of the top layer\n"
    # Listed for init, which ignores it: allowed, and it lives.
    signal = {"ProcessId": pid_of(vm, vm.pod.workload), "Options": {"Signal": 15}}
    fine(vm.bridge.ask(SIGNAL, body(vm.pod.workload, **signal)))
    # What the policy is, is in the container, for the workload to show to others.
    shown = vm.guest.sh(f"cat {root}/security-context-*/security-policy-base64")
    assert shown.startswith("cGFja2FnZSBwb2xpY3kK"), "base64 of `package policy`"
    # The policy and its metadata outlive the daemon.
    dead = vm.guest.daemon.kill()
    vm.guest.hang_up()
    vm.guest.daemon.wait_for_another(dead)
    assert Container(vm.bridge, vm.pod.workload).exec(*ECHO).wait() == 0
    assert reasons(modify(vm.bridge, DISK, "Add", vm.base)) == ["device already mounted at path"]
    end_all(vm)
    after = vm.state()
    assert after[1:] == before[1:]
    for word in (vm.pod.sandbox, vm.pod.workload, BASE, TOP, "verity", "crypt"):
        assert word not in after[0]
    vm.guest.assert_kernel_is_calm()


def refused(vm: Strict, type_: str, request: str, settings: dict[str, Any], reason: str) -> None:
    answer = modify(vm.bridge, type_, request, settings)
    assert code(answer) == "E_FAIL", answer
    said = answer["ErrorMessage"]
    if "policyDecision<" in said:
        assert any(reason in one for one in reasons(answer)), reasons(answer)
    else:
        assert reason in said


def annotated(spec: dict[str, Any]) -> None:
    spec["annotations"]["io.microsoft.virtualmachine.lcow.privileged"] = "true"


HOOK = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "touch /run/owned"]}]}
DEVICE = {"path": "/dev/mem", "type": "c", "major": 1, "minor": 1}
SPECS: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("hooks", lambda spec: spec.update(hooks=HOOK)),
    ("devices not supported", lambda spec: spec["linux"].update(devices=[DEVICE])),
    ("invalid mount list: /proc", lambda spec: spec["mounts"][0]["options"].append("suid")),
    ("hostname", lambda spec: spec.update(hostname="x")),
    ("privileged escalation", annotated),
    ("root.path must equal", lambda spec: spec["root"].update(path="/")),
]


def hostile_creates(vm: Strict) -> None:
    """Containers on layers that are right, which are not as the policy describes them."""
    id = new_id()
    fine(modify(vm.bridge, LAYERS, "Add", vm.pod.overlay(id)))
    for reason, change in SPECS:
        spec = vm.pod.workload_spec()
        spec["root"]["path"] = str(vm.pod.root(id))
        change(spec)
        answer = vm.pod.create(vm.bridge, id, spec)
        assert code(answer) == "E_FAIL", (reason, answer)
        said = answer["ErrorMessage"]
        assert reason in (str(reasons(answer)) if "policyDecision<" in said else said), said
    for name in ("../../etc", "x\n127.0.0.1 registry"):
        other = Pod(vm.pod.layers)
        spec = other.sandbox_spec(hostname=name)
        answer = other.create(vm.bridge, other.sandbox, spec, OciBundlePath=f"/run/gcs/c/{other.sandbox}")
        assert "hostname" in answer["ErrorMessage"], answer
    fine(modify(vm.bridge, LAYERS, "Remove", {"ContainerRootPath": str(vm.pod.root(id))}))


def racing_requests(vm: Strict, disk: dict[str, Any]) -> None:
    """Requests that are sent at once are decided one after the other."""

    def raced(*asked: tuple[str, str, dict[str, Any]]) -> list[str]:
        inner = [{"ResourceType": type_, "RequestType": how, "Settings": what} for type_, how, what in asked]
        numbers = [vm.bridge.send(MODIFY, body(NULL_ID, Request=one)) for one in inner]
        return [code(vm.bridge.answer(number)) for number in numbers]

    assert sorted(raced(*[(DISK, "Add", disk)] * 4)) == ["E_FAIL"] * 3 + ["S_OK"]
    id = new_id()
    layers = [{"Path": TOP}, {"Path": disk["MountPath"]}]
    remove, add = (DISK, "Remove", disk), (LAYERS, "Add", vm.pod.overlay(id, Layers=layers))
    first, overlay, *others = raced(remove, add, remove, remove)
    assert (first, overlay, *others).count("S_OK") == 1, "a layer in use stays, one that is gone is no layer"
    if overlay == "S_OK":
        fine(modify(vm.bridge, LAYERS, "Remove", {"ContainerRootPath": str(vm.pod.root(id))}))
        fine(modify(vm.bridge, DISK, "Remove", disk))


def test_a_hostile_host_gets_nowhere_with_disks(strict: Strict) -> None:
    vm = strict
    mount_all(vm)
    start_all(vm)
    other = layer_of(vm.folder / "own", vm.folder / "other", 8)
    strange = vm.guest.add_disk(vm.image("strange.img", disks.layer(other)), lun=5, read_only=True)
    bare = vm.guest.add_disk(vm.image("plain.img", other), lun=6)
    strange.wait()
    bare.wait()
    known = {"Lun": 1, "ReadOnly": True, "Options": ["ro"]}
    free = "/run/mounts/scsi/m7"
    before = vm.state()

    # Mount options, filesystems, places.
    for options in ([], ["ro", "suid"], ["rw"], ["ro", "context=x"], ["bind"]):
        refused(vm, DISK, "Add", {**known, "MountPath": free, "Options": options}, "mount options")
    refused(vm, DISK, "Add", {**known, "MountPath": free, "Filesystem": "xfs"}, "filesystem must be ext4")
    for path in (
        "/etc",
        "/run/mounts/scsi/m7/../../../etc",
        f"{vm.pod.root(vm.pod.workload)}",
        "/run/layers/x",
    ):
        answer = modify(vm.bridge, DISK, "Add", {**known, "MountPath": path})
        assert code(answer) == "E_FAIL", path
    refused(vm, DISK, "Add", {**known, "MountPath": BASE}, "device already mounted at path")

    # Other disks than those that the policy names, and other ways to get at them.
    refused(vm, DISK, "Add", {**known, "Lun": 5, "MountPath": free}, "deviceHash not found")
    answer = modify(vm.bridge, DISK, "Add", {**known, "Lun": 6, "MountPath": free})
    assert code(answer) == "E_FAIL", "no hash tree"
    refused(
        vm, DISK, "Add", {**known, "MountPath": free, "BlockDev": True}, "blockdev mounts are not supported"
    )
    writable = {"MountPath": f"/run/gcs/c/{new_id()}", "Lun": 6}
    scratch = {"EnsureFilesystem": True, "Filesystem": "xfs", "Encrypted": True}
    plain = {"EnsureFilesystem": True, "Filesystem": "ext4"}
    refused(vm, DISK, "Add", {**writable, **plain}, "unencrypted scratch not allowed")
    refused(vm, DISK, "Add", {**writable, **plain, "EnsureFilesystem": False}, "ensureFilesystem must be set")
    refused(vm, DISK, "Add", {**writable, **plain, "Filesystem": "vfat"}, "filesystem")
    refused(vm, DISK, "Add", {**writable, **scratch, "MountPath": "/etc"}, "mountpoint invalid")
    refused(vm, DISK, "Add", {**writable, **scratch, "Options": ["dev"]}, "mount options")
    mapping = {"DeviceOffsetInBytes": 4096, "DeviceSizeInBytes": 4096}
    refused(vm, PMEM, "Add", {**vm.top, "MountPath": free, "MappingInfo": mapping}, "multi mapping")
    refused(vm, PMEM, "Add", {**vm.top, "MountPath": "/run/layers/p0"}, "mountpoint invalid")

    # Taking away what is in use, or as something else.
    refused(vm, DISK, "Remove", vm.base, "still in use")
    refused(vm, PMEM, "Remove", vm.top, "still in use")
    refused(vm, DISK, "Remove", vm.scratch, "still in use")
    refused(vm, DISK, "Remove", {**vm.base, "ReadOnly": False, "Options": []}, "device provided is read-only")
    refused(vm, DISK, "Remove", {**vm.scratch, "ReadOnly": True}, "device provided is read-write")
    refused(vm, DISK, "Remove", {**known, "MountPath": free}, "no device at path to unmount")
    refused(vm, DISK, "Remove", {**vm.base, "BlockDev": True}, "blockdev mounts are not supported")
    refused(vm, "SCSIDevice", "Remove", {"Controller": 0, "Lun": 1}, "still mounted")
    for id in (vm.pod.workload, vm.pod.sandbox):
        root = {"ContainerRootPath": str(vm.pod.root(id))}
        refused(vm, LAYERS, "Remove", root, "in use by a running container")
        assert code(delete(vm.bridge, id)) == "E_FAIL"

    # Layers in another order, left out, or not layers at all.
    id = new_id()
    for paths in (
        [BASE, TOP],
        [TOP],
        [TOP, TOP, BASE],
        [str(ROOTFS), BASE],
        [TOP, f"/run/gcs/c/{vm.pod.sandbox}"],
    ):
        layers = [{"Path": path} for path in paths]
        refused(vm, LAYERS, "Add", vm.pod.overlay(id, Layers=layers), "no matching containers for overlay")

    # A shared directory, another policy, an unsigned fragment, a process beside the containers.
    share = {"MountPath": f"/run/gcs/c/{vm.pod.sandbox}/mounts/x", "ShareName": "1", "Port": 1}
    assert code(modify(vm.bridge, "MappedDirectory", "Add", share)) == "E_FAIL"
    refused(vm, "SecurityPolicy", "Add", {"EncodedSecurityPolicy": ""}, "already been set")
    assert code(modify(vm.bridge, "SecurityPolicyFragment", "Add", {"Fragment": "AAAA"})) == "E_FAIL"
    parameters = json.dumps({"CommandArgs": ["/bin/sh", "-c", "touch /run/owned"], "Environment": {}})
    answer = vm.bridge.ask(EXECUTE, body(NULL_ID, Settings={"ProcessParameters": parameters}))
    assert "invalid command" in reasons(answer)
    evil = json.dumps({"OCIProcess": specs.process("/bin/sh")})
    answer = vm.bridge.ask(EXECUTE, body(vm.pod.workload, Settings={"ProcessParameters": evil}))
    assert "invalid command" in reasons(answer)

    hostile_creates(vm)
    racing_requests(vm, {**known, "MountPath": free})
    assert vm.state() == before
    assert Container(vm.bridge, vm.pod.workload).exec(*ECHO).wait() == 0
    for disk, lun in ((strange, 5), (bare, 6)):
        fine(modify(vm.bridge, "SCSIDevice", "Remove", {"Controller": 0, "Lun": lun}))
        disk.remove()
    end_all(vm)
    vm.guest.assert_kernel_is_calm()


def test_a_layer_that_changes_after_it_was_judged_is_an_error_to_read(strict: Strict) -> None:
    """The host keeps the disk: what it writes later is found by the hash tree."""
    vm = strict
    fine(modify(vm.bridge, DISK, "Add", vm.base))
    image = vm.folder / "base.img"
    content = bytearray(image.read_bytes())
    at = content.index(b"\x7fELF")
    content[at : at + 4] = b"EVIL"
    with image.open("r+b") as file:
        file.write(content)
    vm.guest.sh("echo 3 > /proc/sys/vm/drop_caches")
    assert "Input/output error" in vm.guest.sh(f"cat {BASE}/bin/busybox 2>&1 >/dev/null", check=False)
    fine(modify(vm.bridge, DISK, "Remove", vm.base))
    # Plugged in anew it is another disk, and is not let in.
    refused(vm, DISK, "Add", {**vm.base, "MountPath": "/etc"}, "mountpoint invalid")
