"""The life of a pod in the host's order, with both runtimes."""

from __future__ import annotations

import json
from pathlib import Path

from support import machine
from support.containers import Container, new_id, shell
from support.daemon import Daemon
from support.host import DELETE, ZERO_GUID, Connection, code
from support.leaks import Snapshot, assert_nothing_left
from support.pods import bind, pod, start_sandbox


def test_a_pod_lives_and_leaves_nothing(daemon: Daemon, bridge: Connection) -> None:
    with pod(bridge) as warm:
        warm.run("true")
    before = Snapshot.take(daemon)
    made = start_sandbox(bridge)
    waiting = bridge.send_wait(made.id, made.sandbox.pid)
    first = made.create("/bin/sleep", "600")
    bridge.start(first.id)
    first.init()
    text = made.run("cat /etc/hostname /etc/hosts; cat /etc/resolv.conf; hostname").decode()
    assert text.startswith("pod-1\n127.0.0.1 localhost\n127.0.0.1 pod-1\n")
    assert text.endswith("\npod-1\n")
    probe = first.exec("/bin/sh", "-c", "echo probe; exit 4", stdout=True)
    assert (probe.wait(), probe.stdout.read_all()) == (4, b"probe\n")
    made.close()
    assert bridge.answer(waiting)["ExitCode"] == 137
    assert_nothing_left(daemon, before)


def test_workloads_share_network_ipc_and_host_name(bridge: Connection) -> None:
    with pod(bridge) as made:
        for kind in ("net", "ipc", "uts"):
            own = Path(f"/proc/{made.sandbox.pid}/ns/{kind}").readlink()
            assert made.run(f"readlink /proc/self/ns/{kind}").decode() == f"{own}\n"


def test_workloads_talk_over_the_pods_loopback(bridge: Connection) -> None:
    with pod(bridge) as made:
        serving = made.create(*shell("nc -l -p 8080 -e echo from-the-other"))
        bridge.start(serving.id)
        serving.init()
        # The listener has no event that this side could wait for.
        asking = "for i in $(seq 100); do nc 127.0.0.1 8080 </dev/null && exit; sleep 0.05; done; exit 9"
        assert made.run(asking) == b"from-the-other\n"


def test_workloads_share_the_pods_mounts(bridge: Connection) -> None:
    mounts = [bind("/mnt", "sandbox:///volumes/data"), bind("/var", "sandbox-tmp:///cache")]
    with pod(bridge) as made:
        made.run("echo one > /mnt/x; echo two > /var/x", mounts=mounts)
        assert made.run("cat /mnt/x /var/x; stat -c %a /mnt", mounts=mounts) == b"one\ntwo\n777\n"
        assert (made.root / "sandboxMounts/volumes/data/x").read_text() == "one\n"
        assert (made.root / "sandboxTmpfsMounts/cache/x").read_text() == "two\n"
    assert not made.root.exists()


def test_every_container_of_a_pod_is_in_the_pods_cgroup(daemon: Daemon, bridge: Connection) -> None:
    with pod(bridge) as made:
        workload = made.create("/bin/sleep", "60")
        rows = {row["id"]: row for row in bridge.properties(ZERO_GUID, "uvmd.ps")["uvmd.ps"]["containers"]}
        for container_id in (made.id, workload.id):
            assert rows[container_id]["cgroup"] == f"{daemon.pods}/{made.id}/{container_id}"
            assert rows[container_id]["pod"] == made.id
            assert any(
                (top / rows[container_id]["cgroup"].lstrip("/")).is_dir()
                for top in machine.cgroup_hierarchies()
            )


def test_a_sandbox_goes_after_its_workloads(bridge: Connection) -> None:
    with pod(bridge) as made:
        workload = made.create("/bin/sleep", "60")
        Container(bridge, made.id).kill()
        bridge.wait_for_notification(made.id)
        answer = bridge.ask(DELETE, {"ContainerId": made.id, "ActivityId": ZERO_GUID})
        assert code(answer) == "E_FAIL"
        assert workload.id in json.dumps(answer)
        made.remove(workload)


def test_a_pod_can_be_created_again_under_its_id(bridge: Connection) -> None:
    pod_id = new_id()
    for _ in range(2):
        with pod(bridge, pod_id=pod_id) as made:
            made.run("true")
        bridge.notifications.clear()
