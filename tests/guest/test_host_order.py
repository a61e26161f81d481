"""A pod as a host sends it, message by message (spec bridge.md 11.3): adapters, disks, containers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from guest.harness.guest import Guest
from support import rootfs, specs
from support.containers import new_id, shell
from support.host import (
    NULL_ID,
    SHUTDOWN_FORCED,
    SHUTDOWN_GRACEFUL,
    ZERO_GUID,
    Connection,
    Process,
    code,
)
from support.pods import bind, sandbox_spec, workload_spec
from uvmd.api.testing.guest.devices import Device
from uvmd.api.testing.guest.leaks import assert_nothing_left, holdings

NS = "0d5b3bb1-9c4f-4a0e-8a5e-3f1f6a0c1d22"
MACS = ("02:75:76:6d:01:01", "02:75:76:6d:01:02")
LAYER = "/run/mounts/scsi/m0"


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image of a read-only layer with a busybox."""
    path = tmp_path_factory.mktemp("layer") / "layer.img"
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", "-d", rootfs.shared(), path, "16M"], check=True)
    return path


@dataclass
class Host:
    """What a host has in its books: everything that it must give back, by container."""

    guest: Guest
    layer: Path
    second: bool
    pod_id: str = field(default_factory=new_id)
    disks: dict[str, Device] = field(default_factory=dict)
    waits: dict[str, int] = field(default_factory=dict)
    inits: dict[str, Process] = field(default_factory=dict)

    @property
    def bridge(self) -> Connection:
        return self.guest.bridge

    def vm(self, resource: str, request: str, settings: dict[str, Any]) -> None:
        self.bridge.modify(NULL_ID, resource, request, settings)

    # Where things are

    def bundle(self, container: str) -> str:
        return f"/run/gcs/pods/{self.pod_id}/{container}" if self.second else f"/run/gcs/c/{container}"

    def scratch_disk(self, container: str) -> str:
        """Where its scratch disk is mounted; the first generation mounts it as the bundle itself."""
        number = 1 if container == self.pod_id else 2
        return f"/run/mounts/scsi/m{number}" if self.second else self.bundle(container)

    def scratch(self, container: str) -> str:
        below = f"{self.pod_id}/{container}" if self.second else container
        return f"{self.scratch_disk(container)}/scratch/{below}"

    # Building up

    def network(self, nics: int) -> None:
        for at in range(nics):
            address = {"IPAddress": f"10.{at + 1}.0.2", "PrefixLength": 24}
            route = {"DestinationPrefix": "0.0.0.0/0", "NextHop": f"10.{at + 1}.0.1"}
            settings = {"ID": MACS[at], "IPConfigs": [address], "Routes": [route], "PolicyBasedRouting": True}
            self.vm("Network", "Add", {"NamespaceID": NS, "DNSServerList": f"10.{at + 1}.0.53", **settings})

    def storage(self, container: str) -> None:
        lun = 1 if container == self.pod_id else 2
        if not self.disks:
            self.disks[""] = self.guest.add_disk(self.layer, lun=0, read_only=True)
            read_only = {"MountPath": LAYER, "Lun": 0, "ReadOnly": True, "Options": ["ro"]}
            self.vm("MappedVirtualDisk", "Add", read_only)
        self.disks[container] = self.guest.add_disk(self.guest.image(f"scratch-{lun}", 64), lun=lun)
        settings = {"MountPath": self.scratch_disk(container), "Lun": lun}
        self.vm("MappedVirtualDisk", "Add", {**settings, "EnsureFilesystem": True, "Filesystem": "ext4"})
        self.vm("CombinedLayers", "Add", self.layers(container))

    def layers(self, container: str) -> dict[str, Any]:
        return {
            "ContainerID": container,
            "ContainerRootPath": f"{self.bundle(container)}/rootfs",
            "Layers": [{"Path": LAYER}],
            "ScratchPath": self.scratch(container),
        }

    def create(self, container: str, spec: dict[str, Any]) -> Process:
        """Create, Start, Execute, and a Wait whose answer comes at the end."""
        spec["root"] = {"path": f"{self.bundle(container)}/rootfs"}
        places = {"OciBundlePath": self.bundle(container), "ScratchDirPath": self.scratch(container)}
        self.bridge.create(container, spec, **places)
        self.bridge.start(container)
        init = self.inits[container] = self.bridge.execute(container, stdout=True, stderr=True)
        self.waits[container] = self.bridge.send_wait(container, init.pid)
        return init

    # Taking down

    def end(self, container: str) -> None:
        """Kill init; the Wait's answer, then what this generation says to a container that is gone."""
        self.bridge.signal(container, self.inits[container].pid, 9)
        streams = self.inits[container]
        streams.stdout.read_all(), streams.stderr.read_all()
        assert self.bridge.answer(self.waits[container])["ExitCode"] == 137
        if not self.second:
            for how in (SHUTDOWN_GRACEFUL, SHUTDOWN_FORCED):
                asked = self.bridge.ask(how, {"ContainerId": container, "ActivityId": ZERO_GUID})
                assert code(asked) == "SYSTEM_ALREADY_STOPPED"
        assert self.bridge.wait_for_notification(container)["Type"] == "ForcedExit"

    def release(self, container: str) -> None:
        root = {"ContainerRootPath": f"{self.bundle(container)}/rootfs"}
        self.vm("CombinedLayers", "Remove", self.layers(container) if self.second else root)
        # The first generation takes a workload's disks before it deletes. Those of a pod's sandbox it
        # leaves to the end of the VM; the pod's directories are mounts on them until the delete.
        if not self.second and container != self.pod_id:
            self.unplug(container)
            self.bridge.delete(container)
        else:
            self.bridge.delete(container)
            self.unplug(container)

    def unplug(self, container: str) -> None:
        lun = 0 if not container else 1 if container == self.pod_id else 2
        path = self.scratch_disk(container) if container else LAYER
        self.vm("MappedVirtualDisk", "Remove", {"MountPath": path, "Lun": lun, "ReadOnly": not container})
        self.vm("SCSIDevice", "Remove", {"Controller": 0, "Lun": lun})
        self.disks.pop(container).remove()


def a_pod(host: Host) -> None:
    """Its whole life: a sandbox, two workloads, a probe, resources, the end."""
    sandbox = host.pod_id
    host.network(2)
    host.storage(sandbox)
    spec = sandbox_spec(sandbox) | {"windows": {"network": {"networkNamespace": NS}}}
    pid = host.create(sandbox, spec).pid
    web = new_id()
    host.storage(web)
    script = "ip -o -4 addr; cat /etc/resolv.conf; echo x >/written; cat /written; echo up; exec sleep 600"
    mounts = [bind("/mnt", "sandbox:///data")]
    init = host.create(web, workload_spec(sandbox, *shell(script), sandbox_pid=pid, mounts=mounts))
    shown = init.stdout.read_until(b"up\n").decode()
    for text in ("10.1.0.2/24", "10.2.0.2/24", "nameserver 10.1.0.53\nnameserver 10.2.0.53\nx\n"):
        assert text in shown
    probe = host.bridge.execute(web, specs.process(*shell("cat /written; exit 3")), stdout=True)
    assert probe.wait() == 3
    assert probe.stdout.read_all() == b"x\n"
    limit = {"Linux": {"memory": {"limit": 64 << 20}}}
    host.bridge.modify(web, "ContainerConstraints", "Update", limit)
    host.bridge.modify(NULL_ID, "PodCgroupMemoryLimit", "Update")
    metrics = host.bridge.properties(web, "Statistics")["LCOWMetrics"]
    assert metrics["memory"]["usage"]["limit"] == 64 << 20
    host.end(web)
    host.release(web)
    host.end(sandbox)
    for mac in MACS:
        host.vm("Network", "Remove", {"NamespaceID": NS, "ID": mac})
    host.release(sandbox)
    host.unplug("")


@pytest.fixture
def wired(fresh_guest: Guest) -> Iterator[Guest]:
    """A guest with two adapters that nobody has configured."""
    with ExitStack() as ending:
        for at, mac in enumerate(MACS):
            fresh_guest.machine.qmp("netdev_add", type="hubport", id=f"hub{at}", hubid=0)
            nic = fresh_guest.add_pci("virtio-net-pci", port=f"rp{at + 1}", mac=mac, netdev=f"hub{at}")
            nic.after_removal("netdev_del", id=f"hub{at}")
            ending.callback(nic.remove)
        yield fresh_guest


def test_a_pod_in_the_order_of_both_generations_leaves_nothing(wired: Guest, layer: Path) -> None:
    before = None
    for _ in range(2):
        for second in (False, True):
            a_pod(Host(wired, layer, second))
            wired.bridge.notifications.clear()
            if before is not None:
                assert_nothing_left(wired, before)
        # What the first of each leaves for good, as the plugins' files, is there by now.
        before = before or wired.call(holdings)
    wired.assert_kernel_is_calm()
