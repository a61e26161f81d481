"""What of a pod's specification becomes of its containers: files, devices, mounts, limits."""

from __future__ import annotations

import base64
import json
import os
import socket
from pathlib import Path

import pytest

from support import machine, rootfs, specs
from support.containers import Container, created, new_id, run, shell
from support.daemon import Daemon, running
from support.host import NULL_ID, Connection
from support.leaks import Snapshot, assert_nothing_left
from support.pods import (
    SANDBOX_ID,
    TYPE,
    VIRTUAL_ID,
    Pod,
    bind,
    pod,
    sandbox_spec,
    start_sandbox,
    workload_spec,
)

PRIVILEGED = "io.microsoft.virtualmachine.lcow.privileged"
HOST_NETWORK = "io.microsoft.virtualmachine.lcow.hostnetwork"
CERTIFICATE = "io.microsoft.virtualmachine.wcow.amd-certificate"
TEE_LOG = "io.microsoft.container.lcow.tee-log-path"
LIMIT = 64 << 20


def limit_of(group: str) -> int:
    """The memory limit of a cgroup, wherever this machine has it."""
    for top in machine.cgroup_hierarchies():
        for name in ("memory.limit_in_bytes", "memory.max"):
            file = top / group.lstrip("/") / name
            if file.exists():
                return int(file.read_text())
    raise AssertionError(f"no memory controller for {group}")


# Network files


def test_a_standalone_container_gets_the_files_it_lacks(bridge: Connection) -> None:
    ran = run(bridge, *shell("cat /etc/hostname /etc/hosts; cat /etc/resolv.conf"), hostname="box.example")
    assert ran.stdout.decode().startswith("box.example\n127.0.0.1 localhost\n127.0.0.1 box.example box\n")
    ran = run(bridge, *shell("cat /etc/hostname"), hostname="")
    assert ran.stdout.decode() == f"{socket.gethostname()}\n"


def test_a_file_that_the_host_mounts_is_not_written(bridge: Connection, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("mine\n")
    container_id = new_id()
    spec = specs.container(*shell("cat /etc/hosts; ls /etc/hostname"))
    spec["mounts"].append(
        {"destination": "/etc/hosts", "type": "bind", "source": str(tmp_path / "hosts"), "options": ["bind"]}
    )
    bridge.create(container_id, spec)
    assert not (bridge.host.bundle(container_id) / "hosts").exists()
    init = bridge.execute(container_id, stdout=True)
    assert init.wait() == 0
    assert init.stdout.read_all() == b"mine\n/etc/hostname\n"
    bridge.wait_for_notification(container_id)
    bridge.delete(container_id)


# Devices


def test_devices_that_the_host_lists_are_those_of_the_vm(bridge: Connection) -> None:
    with pod(bridge) as made:
        container = Container(bridge, new_id())
        script = "ls -l /dev/cpu_dma_latency; head -c 4 /dev/cpu_dma_latency | wc -c"
        spec = workload_spec(made.id, *shell(script))
        # The numbers are the VM's, whatever the host says.
        spec["linux"]["devices"] = [{"path": "/dev/cpu_dma_latency", "type": "b", "major": 1, "minor": 1}]
        bridge.create(container.id, spec)
        made.workloads.append(container)
        init = container.init(stdout=True)
        init.wait()
        status = os.stat("/dev/cpu_dma_latency").st_rdev
        text = init.stdout.read_all().decode()
        assert text.startswith("c")
        assert f"{os.major(status)}, {os.minor(status)}" in " ".join(text.split())
        assert text.endswith("\n4\n"), "a rule lets it be opened"


def test_a_privileged_workload_has_every_device(bridge: Connection) -> None:
    with pod(bridge) as made:
        plain = made.run("ls /dev").split()
        every = made.run("ls /dev; head -c 4 /dev/cpu_dma_latency | wc -c", annotations={PRIVILEGED: "true"})
        assert b"cpu_dma_latency" not in plain
        assert b"cpu_dma_latency" in every.split()
        assert every.endswith(b"\n4\n")


# Mounts


def test_a_path_of_the_vm_is_mounted(bridge: Connection, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("from the vm\n")
    with pod(bridge) as made:
        assert made.run("cat /mnt/x", mounts=[bind("/mnt", f"uvm://{tmp_path}", "ro")]) == b"from the vm\n"


def test_a_single_file_of_the_pod_is_mounted(bridge: Connection) -> None:
    with pod(bridge) as made:
        (made.root / "sandboxMounts" / "file").write_text("one\n")
        assert made.run("cat /etc/group", mounts=[bind("/etc/group", "sandbox:///file")]) == b"one\n"


def test_a_mount_made_later_in_the_pods_directory_reaches_a_running_workload(bridge: Connection) -> None:
    with pod(bridge) as made:
        workload = made.create("/bin/sleep", "600", mounts=[bind("/mnt", "sandbox:///shared")])
        workload.init()
        where = made.root / "sandboxMounts" / "shared" / "later"
        where.mkdir()
        machine_mount(where)
        probe = workload.exec("/bin/sh", "-c", "cat /mnt/later/x", stdout=True)
        assert (probe.wait(), probe.stdout.read_all()) == (0, b"later\n")
    # Nobody unmounted it: the sandbox's delete did.
    assert not where.exists()


def test_a_mount_in_the_pods_directory_stays_when_another_workload_comes(bridge: Connection) -> None:
    shared = [bind("/mnt", "sandbox:///shared")]
    with pod(bridge) as made:
        made.run("true", mounts=shared)
        where = made.root / "sandboxMounts" / "shared" / "earlier"
        where.mkdir()
        machine_mount(where)
        for _ in range(2):
            assert made.run("cat /mnt/earlier/x", mounts=shared) == b"later\n"
        assert where.is_mount()


def machine_mount(where: Path) -> None:
    from uvmd.linux import syscalls

    syscalls.mount("tmpfs", str(where), "tmpfs")
    (where / "x").write_text("later\n")


def test_huge_pages_are_the_pods(bridge: Connection) -> None:
    mounts = [bind("/mnt", "hugepages://2M/pages")]
    with pod(bridge) as made:
        for _ in range(2):
            text = made.run("grep ' /mnt ' /proc/mounts", mounts=mounts).decode()
            assert "hugetlbfs" in text
            assert "pagesize=2M" in text
        assert os.path.ismount(made.root / "hugepages/2M/pages")
    assert not made.root.exists()


# The process


def test_what_the_host_says_of_the_process_reaches_a_workload(bridge: Connection) -> None:
    pod_id = new_id()
    spec = sandbox_spec(pod_id)
    spec["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "81"}
    bridge.create(pod_id, spec)
    bridge.start(pod_id)
    made = Pod(bridge, pod_id, bridge.execute(pod_id))
    user = {"uid": 7, "gid": 8, "additionalGids": [21, 22]}
    script = "cat /proc/self/status /proc/self/limits /proc/sys/net/ipv4/ip_unprivileged_port_start"
    shown = made.run(script, user=user).decode()
    lines = dict(line.split(":\t", 1) for line in shown.splitlines() if ":\t" in line)
    assert lines["Uid"].split() == ["7"] * 4
    assert lines["Gid"].split() == ["8"] * 4
    assert lines["Groups"].split() == ["21", "22"]
    assert lines["NoNewPrivs"] == "1"
    # CHOWN, DAC_OVERRIDE, KILL, SETGID, SETUID: the bounding set of specs.CAPABILITIES.
    assert int(lines["CapBnd"], 16) == 1 << 0 | 1 << 1 | 1 << 5 | 1 << 6 | 1 << 7
    assert "Max open files            1024                 1024" in shown
    assert shown.endswith("\n81\n")
    made.close()


# Limits


def test_the_pods_limits_are_the_sandboxs_and_follow_it(daemon: Daemon, bridge: Connection) -> None:
    pod_id = new_id()
    spec = sandbox_spec(pod_id)
    spec["linux"]["resources"].update(memory={"limit": LIMIT}, pids={"limit": 100})
    bridge.create(pod_id, spec)
    group = f"{daemon.pods}/{pod_id}"
    assert limit_of(group) == LIMIT
    for limit in (2 * LIMIT, LIMIT // 2):
        settings = {"Linux": {"memory": {"limit": limit}}}
        bridge.modify(pod_id, "ContainerConstraints", "Update", settings)
        assert limit_of(group) == limit
        assert limit_of(f"{group}/{pod_id}") == limit
    bridge.delete(pod_id)


def test_a_workloads_limits_are_its_own(daemon: Daemon, bridge: Connection) -> None:
    with pod(bridge) as made:
        workload = made.create("/bin/sleep", "60")
        before = limit_of(f"{daemon.pods}/{made.id}")
        bridge.modify(workload.id, "ContainerConstraints", "Update", {"Linux": {"memory": {"limit": LIMIT}}})
        assert limit_of(f"{daemon.pods}/{made.id}/{workload.id}") == LIMIT
        assert limit_of(f"{daemon.pods}/{made.id}") == before


# Virtual pods, layouts, the VM's network


def test_virtual_pods_share_a_vm_and_not_their_directories(daemon: Daemon, bridge: Connection) -> None:
    with pod(bridge) as warm:
        warm.run("true")
    before = Snapshot.take(daemon)
    pods = []
    for name in ("one", "two"):
        pod_id = new_id()
        made = start_sandbox(
            bridge, pod_id=pod_id, hostname=name, annotations={VIRTUAL_ID: pod_id, TYPE: "container"}
        )
        pods.append(made)
    for made, name in zip(pods, ("one", "two"), strict=True):
        root = bridge.host.bundles / "c" / "virtual-pods" / made.id
        assert (root / "hostname").read_text() == f"{name}\n"
        annotations = {VIRTUAL_ID: made.id, SANDBOX_ID: "not-this-one"}
        text = made.run(
            f"cat /etc/hostname; echo {name} > /mnt/x",
            annotations=annotations,
            mounts=[bind("/mnt", "sandbox:///x")],
        )
        assert text == f"{name}\n".encode()
        assert (root / "sandboxMounts/x/x").read_text() == f"{name}\n"
    for made in pods:
        made.close()
    assert_nothing_left(daemon, before)


def test_the_layout_of_a_second_generation_host(daemon: Daemon, bridge: Connection) -> None:
    pod_id, workload = new_id(), new_id()
    bundles = daemon.bundles / "pods" / pod_id
    places = {
        container_id: {
            "OciBundlePath": str(bundles / container_id),
            "ScratchDirPath": str(daemon.bundles / "scratch" / pod_id / container_id),
        }
        for container_id in (pod_id, workload)
    }
    bridge.create(pod_id, sandbox_spec(pod_id), **places[pod_id])
    bridge.create(workload, workload_spec(pod_id, "/bin/sleep", "60"), **places[workload])
    # Created and never started, both are deleted as they are.
    bridge.delete(workload)
    bridge.delete(pod_id)
    assert not (bundles / pod_id).exists()


def test_a_pod_in_the_vms_network_takes_its_workloads_along(bridge: Connection) -> None:
    with pod(bridge, annotations={HOST_NETWORK: "true"}) as made:
        own = os.readlink("/proc/self/ns/net")
        assert os.readlink(f"/proc/{made.sandbox.pid}/ns/net") == own
        container = Container(bridge, new_id())
        ignored = {HOST_NETWORK: "false"}
        spec = workload_spec(made.id, *shell("readlink /proc/self/ns/net"), annotations=ignored)
        bridge.create(container.id, spec)
        made.workloads.append(container)
        init = container.init(stdout=True)
        init.wait()
        assert init.stdout.read_all().decode() == f"{own}\n"


# Logs and the security context


def test_the_logs_of_a_pods_workloads_are_together(bridge: Connection) -> None:
    with pod(bridge) as made:
        made.run("echo hello", annotations={TEE_LOG: "web/0.log"})
        assert (made.root / "logs/web/0.log").read_text() == "hello\n"


@pytest.fixture
def own_root(tmp_path: Path) -> Path:
    rootfs.build(tmp_path / "rootfs")
    return tmp_path / "rootfs"


def test_the_security_context_is_shown_and_goes_with_the_container(runtime: str, own_root: Path) -> None:
    reference = base64.b64encode(b"reference").decode()
    with running(runtime=runtime) as daemon:
        bridge = daemon.connect()
        bridge.modify(NULL_ID, "SecurityPolicy", "Add", {"EncodedUVMReference": reference})
        files = "reference-info-base64 host-amd-cert-base64"
        script = f"cd $UVM_SECURITY_CONTEXT_DIR && pwd && cat {files} && stat -c %a . *"
        before = sorted(own_root.iterdir())
        with created(
            bridge, *shell(script), root=own_root, readonly=False, annotations={CERTIFICATE: "cert"}
        ) as container:
            init = container.init(stdout=True)
            assert init.wait() == 0
            name, rest = init.stdout.read_all().decode().split("\n", 1)
            assert name.startswith("/security-context-")
            assert rest == f"{reference}cert755\n644\n644\n"
        assert sorted(own_root.iterdir()) == before
        bridge.close()


# A new daemon


def test_a_pod_outlives_its_daemon(daemon: Daemon, bridge: Connection) -> None:
    with pod(bridge) as warm:
        warm.run("true")
    before = Snapshot.take(daemon)
    made = start_sandbox(bridge)
    workload = made.create("/bin/sleep", "600", mounts=[bind("/mnt", "sandbox:///kept")])
    workload.init()
    daemon.kill_daemon()
    made.bridge = workload.bridge = again = daemon.connect()
    again.host.streams.clear()
    kept = [bind("/mnt", "sandbox:///kept")]
    assert made.run("echo more > /mnt/x; cat /etc/hostname", mounts=kept) == b"pod-1\n"
    probe = workload.exec("/bin/cat", "/mnt/x", stdout=True)
    assert (probe.wait(), probe.stdout.read_all()) == (0, b"more\n")
    rows = {row["id"]: row for row in again.properties(NULL_ID, "uvmd.ps")["uvmd.ps"]["containers"]}
    assert (rows[made.id]["kind"], rows[workload.id]["pod"]) == ("sandbox", made.id)
    made.close()
    after = Snapshot.take(daemon)
    assert not [line for line in before.differences(after) if not line.startswith("daemon_descriptors")]
    again.close()


def test_the_journal_of_a_pod_says_what_it_is(daemon: Daemon, bridge: Connection) -> None:
    with pod(bridge) as made:
        entry = json.loads((daemon.run_dir / "journal" / f"{made.id}.json").read_text())
        assert entry["role"]["kind"] == "sandbox"
        assert entry["sandbox_root"] == str(made.root)
