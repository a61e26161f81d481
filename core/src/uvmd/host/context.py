"""What every operation works with: the daemon's parts, passed as one thing."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from uvmd.host.exits import Exits
from uvmd.host.journal import Journal
from uvmd.host.mounted import ContainerMounts
from uvmd.host.network import Network
from uvmd.host.parts import HostSettings, Lock, Policy, Slots
from uvmd.host.pods import Pods
from uvmd.host.registry import Registry
from uvmd.host.shapers import Shapers
from uvmd.host.timers import Timers
from uvmd.linux.cgroups import Cgroups
from uvmd.oci.runtime import OciRuntime

__all__ = ["Context", "HostSettings"]


@dataclass(frozen=True, slots=True)
class Context:
    """The parts. Frozen: nothing is swapped while requests are served."""

    settings: HostSettings
    slots: Slots
    runtime: OciRuntime
    gate: Policy
    lock: Lock
    registry: Registry
    journal: Journal
    cgroups: Cgroups
    timers: Timers
    exits: Exits
    pods: Pods
    shapers: Shapers
    network: Network
    mounts: ContainerMounts = field(default_factory=ContainerMounts)

    def changing(self, *keys: str, who: str) -> AbstractContextManager[None]:
        """Hold the change lock: the whole VM when strict, else the keys."""
        return self.lock.hold(keys, lambda: self.gate.strict, who=who)

    def work_dir(self, container_id: str) -> str:
        """The directory for a container's runtime logs, pid files and process documents."""
        return f"{self.settings.run_dir}/containers/{container_id}"

    def pod_cgroup(self, pod_id: str) -> str:
        """The cgroup of a pod, or of a standalone container."""
        return f"{self.settings.pods_cgroup}/{pod_id}"

    def console_socket(self, slot: int) -> str:
        """The path at which a slot's terminal is handed over; short, since a socket's path must be."""
        return f"{self.settings.run_dir}/console/{slot}"
