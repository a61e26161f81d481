"""Pods for tests: a sandbox and its workloads, as a host sends them (spec bridge.md 11.3)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import specs
from support.containers import Container, new_id, shell
from support.daemon import command_line, wait_until
from support.host import Connection, Process

TYPE = "io.kubernetes.cri.container-type"
SANDBOX_ID = "io.kubernetes.cri.sandbox-id"
VIRTUAL_ID = "io.microsoft.cri.virtual-pod-id"
SKIP_NETWORK = "io.microsoft.cri.skip-pod-networking"

#: What a sandbox does all day.
PAUSE = ("/bin/sleep", "86400")


def sandbox_spec(
    pod_id: str, *args: str, annotations: Mapping[str, str] | None = None, **of_spec: Any
) -> dict[str, Any]:
    """The specification of a pod's sandbox."""
    named = {TYPE: "sandbox", SANDBOX_ID: pod_id, **(annotations or {})}
    return specs.container(*(args or PAUSE), annotations=named, **{"hostname": "pod-1", **of_spec})


def workload_spec(
    pod_id: str,
    *args: str,
    sandbox_pid: int = 0,
    annotations: Mapping[str, str] | None = None,
    mounts: list[dict[str, Any]] | None = None,
    **of_spec: Any,
) -> dict[str, Any]:
    """The specification of a workload; with the sandbox's pid in its namespaces, as hosts do it."""
    named = {TYPE: "container", SANDBOX_ID: pod_id, **(annotations or {})}
    spec = specs.container(*args, annotations=named, **{"hostname": "", **of_spec})
    if sandbox_pid:
        shared = {"ipc": "ipc", "network": "net", "uts": "uts"}
        spec["linux"]["namespaces"] = [
            {"type": kind, "path": f"/proc/{sandbox_pid}/ns/{shared[kind]}"} if kind in shared else entry
            for entry in spec["linux"]["namespaces"]
            for kind in (entry["type"],)
        ]
    spec["mounts"] += mounts or []
    return spec


def bind(destination: str, source: str, *options: str) -> dict[str, Any]:
    """A bind mount, with all below it and in step with its source, as hosts ask for it."""
    return {
        "destination": destination,
        "type": "bind",
        "source": source,
        "options": ["rbind", "rshared", *(options or ("rw",))],
    }


@dataclass(slots=True)
class Pod:
    """A pod whose sandbox runs, and its workloads."""

    bridge: Connection
    id: str
    sandbox: Process
    workloads: list[Container] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.bridge.host.bundle(self.id)

    def create(self, *args: str, **of_spec: Any) -> Container:
        """Create a workload that shares the sandbox's namespaces."""
        container = Container(self.bridge, new_id())
        spec = workload_spec(self.id, *args, sandbox_pid=self.sandbox.pid, **of_spec)
        scratch = str(self.root / "scratch" / container.id)
        self.bridge.create(container.id, spec, ScratchDirPath=scratch)
        self.workloads.append(container)
        return container

    def run(self, script: str, **of_spec: Any) -> bytes:
        """Run a script in a workload of its own to the end; returns its output."""
        container = self.create(*shell(script), **of_spec)
        self.bridge.start(container.id)
        init = container.init(stdout=True, stderr=True)
        code, out, error = init.wait(), init.stdout.read_all(), init.stderr.read_all()
        assert code == 0, (code, out, error)
        self.remove(container)
        return bytes(out)

    def remove(self, container: Container) -> None:
        """Delete a workload, killing it if it runs."""
        container.kill()
        self.bridge.wait_for_notification(container.id, timeout_s=10)
        container.delete()
        self.workloads.remove(container)

    def close(self) -> None:
        """Take the whole pod down in the host's order."""
        for container in list(self.workloads):
            self.remove(container)
        Container(self.bridge, self.id).kill()
        self.bridge.wait_for_notification(self.id, timeout_s=10)
        self.bridge.delete(self.id)


def start_sandbox(bridge: Connection, *args: str, pod_id: str = "", **of_spec: Any) -> Pod:
    """Create and start a sandbox; the pod is the caller's to close."""
    pod_id = pod_id or new_id()
    bridge.create(pod_id, sandbox_spec(pod_id, *args, **of_spec))
    bridge.start(pod_id)
    made = Pod(bridge, pod_id, bridge.execute(pod_id))
    # Until its exec the runtime's own command line is seen, which is no leak and looks like one.
    wanted = list(args or PAUSE)
    wait_until(lambda: command_line(made.sandbox.pid) == wanted, what="the sandbox's command")
    return made


@contextlib.contextmanager
def pod(bridge: Connection, *args: str, **of_spec: Any) -> Iterator[Pod]:
    """A pod that is taken down at the end, whatever happens."""
    made = start_sandbox(bridge, *args, **of_spec)
    try:
        yield made
    except BaseException:
        with contextlib.suppress(Exception):
            made.close()
        raise
    made.close()
