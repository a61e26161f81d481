"""Pods: a workload's life, the way to a running pod of three, memory with fifty of them."""

from __future__ import annotations

import statistics
import time
from typing import Any

from bare import rest
from footprint import MIB, settled
from lives import FOREVER, NO_STREAMS, TRUE, config_for_bare
from report import Figure, milliseconds
from stances import Stance, bare_beside, clock

from support import leaks
from support.containers import new_id
from support.daemon import Daemon
from support.host import CREATE, DELETE, EXECUTE, WAIT, Connection
from support.pods import PAUSE, Pod, bind, pod, sandbox_spec, start_sandbox, workload_spec

SHARED = [bind("/mnt", "sandbox:///data")]


def create(bridge: Connection, container_id: str, spec: Any) -> None:
    config = bridge.host.container_config(container_id, spec)
    bridge.call(CREATE, container_id, ContainerConfig=config)


def start(bridge: Connection, container_id: str) -> int:
    return int(bridge.call(EXECUTE, container_id, Settings=NO_STREAMS)["ProcessId"])


def config_of(daemon: Daemon, made: Pod) -> dict[str, Any]:
    """A workload's config.json as the runtime got it, with the place of its mount put back."""
    workload = made.create(*TRUE, mounts=SHARED)
    files = {f"/etc/{name}": made.root / name for name in ("hostname", "hosts", "resolv.conf")}
    there = {**files, "/mnt": made.root / "sandboxMounts" / "data"}
    config = config_for_bare(daemon, daemon.host.bundle(workload.id), there, made.root)
    made.remove(workload)
    return config


def workload_against_bare(daemon: Daemon, bridge: Connection, runtime: str, count: int) -> Figure:
    ours, theirs = [], []
    with pod(bridge) as made:
        bare = bare_beside(bridge, runtime, config_of(daemon, made), daemon.folder)
        for number in range(count + 3):
            alone = bare.life(TRUE)
            container_id = new_id()
            spec = workload_spec(made.id, *TRUE, sandbox_pid=made.sandbox.pid, mounts=SHARED)
            rest()
            began = clock(bridge)
            create(bridge, container_id, spec)
            pid = start(bridge, container_id)
            bridge.call(WAIT, container_id, ProcessId=pid, TimeoutInMs=FOREVER)
            bridge.call(DELETE, container_id)
            taken = clock(bridge) - began
            if number >= 3:  # the first ones warm caches up
                ours.append(taken)
                theirs.append(alone)
    ratio = statistics.median(ours) / statistics.median(theirs)
    beside = f"uvmd {milliseconds(ours):.1f} ms, bare {runtime} {milliseconds(theirs):.1f} ms"
    return Figure(f"workload's life in a pod, {runtime}, to bare", 1.4, ratio, "x", beside, count)


def pod_of_three(daemon: Daemon, bridge: Connection, runtime: str, count: int) -> Figure:
    """From a pod's first message to all of its three containers running."""
    with pod(bridge) as made:
        config = config_of(daemon, made)
    # The sandbox is gone, so the bare ones get namespaces of their own; they make more, not less.
    for entry in config["linux"]["namespaces"]:
        entry.pop("path", None)
    config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] != "/mnt"]
    folder = daemon.folder / "three"
    folder.mkdir()
    bare = bare_beside(bridge, runtime, config, folder)
    ours, theirs = [], []
    for number in range(count + 2):
        rest()
        began = time.perf_counter()
        alone = [bare.start_container(list(PAUSE)) for _ in range(3)]
        taken_alone = time.perf_counter() - began
        for name, pid in alone:
            bare.remove(name, pid)
        pod_id, workloads = new_id(), [new_id(), new_id()]
        rest()
        began = clock(bridge)
        create(bridge, pod_id, sandbox_spec(pod_id))
        made = Pod(bridge, pod_id, bridge.execute(pod_id))
        for container_id in workloads:
            spec = workload_spec(pod_id, *PAUSE, sandbox_pid=made.sandbox.pid, mounts=SHARED)
            create(bridge, container_id, spec)
            start(bridge, container_id)
        taken = clock(bridge) - began
        for container_id in (*workloads, pod_id):
            bridge.signal(container_id, _pid_of(bridge, container_id))
            bridge.wait_for_notification(container_id)
            bridge.call(DELETE, container_id)
        if number >= 2:
            ours.append(taken)
            theirs.append(taken_alone)
    ratio = statistics.median(ours) / statistics.median(theirs)
    beside = f"uvmd {milliseconds(ours):.1f} ms, three times bare {runtime} {milliseconds(theirs):.1f} ms"
    return Figure(f"pod of 3 to running, p50, {runtime}, to bare", 1.5, ratio, "x", beside, count)


def _pid_of(bridge: Connection, container_id: str) -> int:
    rows = bridge.properties(container_id, "ProcessList")["ProcessList"]
    return int(rows[0]["ProcessId"])


def memory(stance: Stance, count: int = 50) -> Figure:
    with stance.running() as daemon:
        bridge = stance.connect(daemon)
        pods = [start_sandbox(bridge) for _ in range(count)]
        for made in pods:
            for _ in range(2):
                start(bridge, made.create(*PAUSE, mounts=SHARED).id)
        settled(daemon)
        rss = leaks.rss_kib(daemon.daemon_pid) / MIB
        beside = f"monitor PSS {leaks.pss_kib(daemon.monitor_pid) / MIB:.1f} MiB"
        for made in pods:
            made.close()
        bridge.close()
    return Figure(f"daemon, RSS with {count} pods of 3 running", 75 / 1.048576, rss, "MiB", beside, count)
