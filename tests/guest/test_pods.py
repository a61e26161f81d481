"""Pods in the guest: cgroups, limits, statistics and out-of-memory kills, on both versions of cgroups."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from guest.harness.code import ROOTFS
from guest.harness.daemon import LOG
from guest.harness.guest import Guest
from support import machine
from support.containers import Container, new_id, shell
from support.daemon import ENVIRONMENT, wait_until
from support.host import NULL_ID, Connection, Gone
from support.pods import Pod, bind, sandbox_spec
from uvmd.api.testing.guest.profiles import PROFILES, Profile

MIB = 1 << 20
#: busybox keeps the last line in memory, and this one has no end.
EATER = "tail /dev/zero"
#: What each version calls it: controller of version 1, its file, the file of version 2.
FILES = {
    "memory": ("memory", "memory.limit_in_bytes", "memory.max"),
    "pids": ("pids", "pids.max", "pids.max"),
    "quota": ("cpu", "cpu.cfs_quota_us", "cpu.max"),
    "shares": ("cpu", "cpu.shares", "cpu.weight"),
}


@pytest.fixture(scope="module", params=["v2", "v1"])
def profile(request: pytest.FixtureRequest) -> Profile:
    return PROFILES[request.param]


def limit(guest: Guest, group: str, what: str) -> str:
    controller, first, second = FILES[what]
    v2 = guest.profile.cgroups == "v2"
    folder = "/sys/fs/cgroup" if v2 else f"/sys/fs/cgroup/{controller}"
    return guest.read(f"{folder}/pods/{group}/{second if v2 else first}").strip()


@contextlib.contextmanager
def pod_in(guest: Guest, bridge: Connection | None = None, **resources: Any) -> Iterator[Pod]:
    """A pod with these limits whose sandbox runs."""
    bridge = bridge or guest.bridge
    pod_id = new_id()
    spec = sandbox_spec(pod_id, root=ROOTFS)
    spec["linux"]["resources"].update(resources)
    bridge.create(pod_id, spec)
    bridge.start(pod_id)
    made = Pod(bridge, pod_id, bridge.execute(pod_id))
    yield made
    made.close()


def running(pod: Pod, *args: str, **of_spec: Any) -> Container:
    container = pod.create(*args, root=ROOTFS, **of_spec)
    pod.bridge.start(container.id)
    container.init()
    return container


@pytest.fixture
def asking(guest: Guest) -> Iterator[Connection]:
    """A connection that asked for events."""
    guest.hang_up()
    while True:
        try:
            connection = guest.connect(negotiate=False)
            connection.negotiate(UvmdEvents=True)
            break
        except Gone:
            continue  # One that the monitor had made before we closed the other.
    yield connection
    connection.close()
    assert guest.bridge  # what is compared afterwards has one


@pytest.fixture
def kills(guest: Guest) -> Iterator[None]:
    """The kernel tells of each kill with a trace of what it was doing."""
    yield
    guest.assert_kernel_is_calm(but_for="invoked oom-killer")


def logged(guest: Guest, words: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, guest.read(LOG).splitlines()) if words in line["msg"]]


def said_by_the_kernel(guest: Guest, words: str) -> list[str]:
    lines = map(json.loads, guest.read(LOG).splitlines())
    return [line["text"] for line in lines if line["msg"] == "kernel" and words in line["text"]]


def kill_of(guest: Guest, container_id: str) -> dict[str, Any]:
    """The one line about a kill in this container."""
    lines = [line for line in logged(guest, "for lack of memory") if line["container"] == container_id]
    assert len(lines) == 1, lines
    return lines[0]


def memory_size() -> int:
    """What the VM has; runs in the guest."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return int(file.readline().split()[1]) * 1024


def memory_at_least(size: int) -> bool:
    with open("/proc/meminfo", encoding="ascii") as file:
        return int(file.readline().split()[1]) * 1024 >= size


# Limits and statistics


def test_a_pod_has_the_limits_of_its_sandbox_and_they_follow_it(guest: Guest) -> None:
    resources = {
        "memory": {"limit": 256 * MIB},
        "pids": {"limit": 100},
        "cpu": {"shares": 512, "quota": 50000, "period": 100000},
    }
    v2 = guest.profile.cgroups == "v2"
    with pod_in(guest, **resources) as pod:
        web, database = running(pod, "/bin/sleep", "600"), running(pod, "/bin/sleep", "600")
        assert limit(guest, pod.id, "memory") == str(256 * MIB)
        assert limit(guest, pod.id, "pids") == "100"
        assert limit(guest, pod.id, "quota") == ("50000 100000" if v2 else "50000")
        assert limit(guest, pod.id, "shares") == ("20" if v2 else "512")
        before = limit(guest, f"{pod.id}/{database.id}", "memory")
        settings = {"Linux": {"memory": {"limit": 32 * MIB}, "cpu": {"quota": 20000, "period": 100000}}}
        pod.bridge.modify(web.id, "ContainerConstraints", "Update", settings)
        assert limit(guest, f"{pod.id}/{web.id}", "memory") == str(32 * MIB)
        assert limit(guest, f"{pod.id}/{database.id}", "memory") == before
        settings = {"Linux": {"memory": {"limit": 96 * MIB}}}
        pod.bridge.modify(pod.id, "ContainerConstraints", "Update", settings)
        assert limit(guest, pod.id, "memory") == limit(guest, f"{pod.id}/{pod.id}", "memory") == str(96 * MIB)
        settings = {"Linux": {"memory": {"limit": -1}, "cpu": {"quota": -1}}}
        pod.bridge.modify(web.id, "ContainerConstraints", "Update", settings)
        assert limit(guest, f"{pod.id}/{web.id}", "quota") == ("max 100000" if v2 else "-1")


def test_the_limit_of_all_pods_follows_the_vms_size(fresh_guest: Guest) -> None:
    guest = fresh_guest
    guest.sh("echo online >/sys/devices/system/memory/auto_online_blocks")
    before, size = int(limit(guest, "", "memory")), guest.call(memory_size)
    guest.machine.qmp("object-add", qom_type="memory-backend-ram", id="more", size=256 * MIB)
    guest.machine.qmp("device_add", driver="pc-dimm", id="dimm", memdev="more")
    guest.wait_until(memory_at_least, size + 255 * MIB, what="the memory is there")
    guest.bridge.modify(NULL_ID, "PodCgroupMemoryLimit", "Update")
    grown = guest.call(memory_size) - size
    assert abs(int(limit(guest, "", "memory")) - before - grown) < 4096


def test_statistics_have_the_shape_of_version_1_on_both(guest: Guest) -> None:
    with pod_in(guest) as pod:
        busy = "dd if=/dev/zero of=/tmp/some bs=1M count=4 2>/dev/null; sleep 600"
        container = running(pod, *shell(busy))
        settings = {"Linux": {"memory": {"limit": 64 * MIB}, "pids": {"limit": 50}}}
        pod.bridge.modify(container.id, "ContainerConstraints", "Update", settings)

        def statistics() -> dict[str, Any]:
            found: dict[str, Any] = pod.bridge.properties(container.id, "Statistics")["LCOWMetrics"]
            return found if found["memory"].get("cache", 0) >= 4 * MIB else {}

        found = wait_until(statistics, what="the cache of the file that it wrote")
        assert found["pids"]["limit"] == 50
        assert 1 <= found["pids"]["current"] <= 2
        assert found["memory"]["usage"]["limit"] == 64 * MIB
        assert 4 * MIB <= found["memory"]["usage"]["usage"] <= found["memory"]["usage"]["max"]
        assert found["memory"]["hierarchical_memory_limit"] == 64 * MIB
        assert found["memory"]["pg_fault"] > 0
        usage = found["cpu"]["usage"]
        assert usage["total"] >= usage.get("user", 0) > 0 or usage["kernel"] > 0
        assert {"swap", "kernel", "kernel_tcp"} <= found["memory"].keys()
        assert "throttling" in found["cpu"]
        if guest.profile.cgroups == "v1":
            # What version 2 has no source for.
            assert found["memory"]["total_cache"] >= 4 * MIB
            assert sum(usage["per_cpu"]) > 0
        for emptied in ("blkio", "rdma"):
            assert found.get(emptied, {}) == {}
        assert "network" not in found


def test_the_limit_of_processes_is_felt(guest: Guest) -> None:
    with pod_in(guest) as pod:
        spec_of = "i=0; while [ $i -lt 20 ]; do sleep 5 & i=$((i+1)); done; echo started all"
        container = pod.create(*shell("read go; " + spec_of), root=ROOTFS)
        pod.bridge.modify(container.id, "ContainerConstraints", "Update", {"Linux": {"pids": {"limit": 8}}})
        pod.bridge.start(container.id)
        init = container.init(stdin=True, stdout=True, stderr=True)
        init.stdin.write(b"go\n")
        assert init.wait() != 0
        assert init.stdout.read_all() == b""
        assert b"fork" in init.stderr.read_all()


# Out of memory


@pytest.mark.usefixtures("kills")
def test_a_kill_is_logged_with_its_container_and_told_to_a_host_that_asked(
    guest: Guest, asking: Connection
) -> None:
    with pod_in(guest, asking) as pod:
        neighbour = running(pod, "/bin/sleep", "600")
        container = pod.create(*shell(f"{EATER}; echo killed with $?; sleep 600"), root=ROOTFS)
        settings = {"Linux": {"memory": {"limit": 16 * MIB}}}
        asking.modify(container.id, "ContainerConstraints", "Update", settings)
        asking.start(container.id)
        init = container.init(stdout=True)
        event = asking.wait_for_event(container.id, "OutOfMemory")
        assert (event["Kills"], event["LimitBytes"], event["PodId"]) == (1, 16 * MIB, pod.id)
        assert 0 < event["PeakBytes"] <= 16 * MIB
        line = kill_of(guest, container.id)
        assert (line["level"], line["pod"], line["kills"]) == ("warning", pod.id, 1)
        assert line["cgroup"] == f"/pods/{pod.id}/{container.id}"
        # The image's own settings forward what the kernel says of it.
        wait_until(lambda: said_by_the_kernel(guest, "emory cgroup out of memory"))
        assert not [one for one in asking.events if one["ContainerId"] == neighbour.id and "Kills" in one]
        container.kill()
        assert init.wait() == 137
        assert init.stdout.read_all() == b"killed with 137\n"


@pytest.mark.usefixtures("kills")
def test_a_pod_that_runs_out_names_the_container_in_which_was_killed(
    guest: Guest, asking: Connection
) -> None:
    with pod_in(guest, asking, memory={"limit": 24 * MIB}) as pod:
        container = running(pod, *EATER.split())
        event = asking.wait_for_event(container.id, "OutOfMemory")
        assert event["PodId"] == pod.id
        asking.wait_for_notification(container.id)
        assert kill_of(guest, container.id)["container"] == container.id
        # The sandbox is small and lives on, so does the pod.
        assert pod.run("echo still here", root=ROOTFS) == b"still here\n"


@pytest.mark.usefixtures("kills")
def test_uvmctl_prints_the_kill(guest: Guest) -> None:
    uvmctl = str(machine.BIN / "uvmctl")
    environment = {**ENVIRONMENT, "UVMD_HOST": f"unix:{guest.host.path}"}
    guest.hang_up()
    guest.host.refuse()
    with contextlib.ExitStack() as ending:

        def start(*arguments: str, **streams: Any) -> subprocess.Popen[bytes]:
            started = ending.enter_context(subprocess.Popen([uvmctl, *arguments], env=environment, **streams))
            ending.callback(started.terminate)
            return started

        host = start("host", stderr=subprocess.PIPE)
        assert host.stderr is not None
        wait_until(lambda: b"the daemon is connected" in host.stderr.readline(), what="the host is there")
        watching = start("events", stdout=subprocess.PIPE)
        assert watching.stdout is not None
        os.set_blocking(watching.stdout.fileno(), False)
        told = b""
        for number in range(20):  # it begins to see them some time after its start
            words = [uvmctl, "run", "--rm", "--read-only", "--id", f"oom-{number}", "--memory", "16m"]
            ran = subprocess.run(
                [*words, str(ROOTFS), *EATER.split()], env=environment, capture_output=True, timeout=60
            )
            assert ran.returncode == 137, ran
            told += watching.stdout.read() or b""
            if b"OutOfMemory" in told:
                break
        (line,) = [line for line in told.decode().splitlines() if "OutOfMemory" in line][:1]
        assert "oom-" in line
    guest.host.listen()
    assert guest.bridge


# uvmd itself

UNITS = ("uvmd-monitor.service/", "uvmd.service/")


def test_uvmd_is_protected_and_its_containers_are_not(guest: Guest) -> None:
    with pod_in(guest) as pod:
        container = running(pod, "/bin/sleep", "600")
        init = guest.call(_inits, f"/pods/{pod.id}/{container.id}")
        assert {guest.read(f"/proc/{pid}/oom_score_adj") for pid in init} == {"0\n"}
    for role, unit, score in (("monitor", "uvmd-monitor", -950), ("daemon", "uvmd", -900)):
        pid = guest.daemon.pids[role]
        assert guest.read(f"/proc/{pid}/oom_score_adj") == f"{score}\n"
        groups = guest.read(f"/proc/{pid}/cgroup").splitlines()
        assert any(line.endswith(f":/uvmd.slice/{unit}.service") for line in groups), groups
    if guest.profile.cgroups == "v2":
        low = [guest.read(f"/sys/fs/cgroup/uvmd.slice/{name}memory.low") for name in ("", *UNITS)]
        assert [int(text) // MIB for text in low] == [192, 64, 128]


def _inits(group: str) -> list[int]:
    import glob

    found = glob.glob(f"/sys/fs/cgroup{group}/cgroup.procs") or glob.glob(
        f"/sys/fs/cgroup/memory{group}/cgroup.procs"
    )
    with open(found[0], encoding="ascii") as file:
        return [int(line) for line in file]


def test_in_a_cgroup_of_its_own_it_says_when_it_uses_much(fresh_guest: Guest) -> None:
    # Not as a unit: a process that leaves its unit's cgroup is lost to systemd.
    guest = fresh_guest
    guest.daemon.stop()
    options = {"log-file": LOG, "cgroups-own": "/uvmd-own", "cgroups-warn-bytes": MIB}
    words = " ".join(f"--{name}={value}" for name, value in options.items())
    guest.sh(f"(setsid uvmd serve {words} </dev/null >/dev/null 2>&1 &)")
    assert guest.run("/bin/true").exit_code == 0
    v2 = guest.profile.cgroups == "v2"
    processes = guest.daemon.pids
    for pid in processes.values():
        groups = guest.read(f"/proc/{pid}/cgroup").splitlines()
        assert any(line.endswith(f"{'0::' if v2 else ':memory:'}/uvmd-own") for line in groups), groups
    (line,) = wait_until(lambda: logged(guest, "uses much memory"))
    assert line["usage_bytes"] > 900_000
    if v2:
        assert guest.read("/sys/fs/cgroup/uvmd-own/memory.high") == "max\n", "lifted once it has told"
        assert int(guest.read("/sys/fs/cgroup/uvmd-own/memory.low")) == 192 * MIB
    guest.hang_up()
    guest.sh(f"kill {processes['monitor']}")
    wait_until(lambda: not guest.daemon.pids, what="uvmd ends")
    assert guest.sh("ls -d /sys/fs/cgroup/uvmd-own /sys/fs/cgroup/*/uvmd-own 2>/dev/null", check=False) == ""


# Mounts


def test_a_pods_files_are_its_own(guest: Guest) -> None:
    shared = [bind("/mnt", "sandbox:///data"), bind("/tmp", "sandbox-tmp:///data")]
    script = "cat /mnt/file /tmp/file 2>/dev/null || echo none"
    with pod_in(guest) as one, pod_in(guest) as other:
        one.run("echo a >/mnt/file; echo b >/tmp/file", root=ROOTFS, mounts=shared)
        assert one.run(script, root=ROOTFS, mounts=shared) == b"a\nb\n"
        assert other.run(script, root=ROOTFS, mounts=shared) == b"none\n"
