"""The host: all that can be asked of the VM, in one place.

The bridge knows this class and nothing below it. Methods block and are called on the pools'
threads, but for ``wait``, ``exited`` and ``drained``, which belong to the poll thread and never
block. What an operation does is in ``operations``.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Protocol

from uvmd.api.containers import ContainerEvent
from uvmd.api.resources import Claim
from uvmd.api.transaction import Undo
from uvmd.errors import Failed, Refused
from uvmd.host import memory_events, power, recovery
from uvmd.host.containers import Container
from uvmd.host.context import Context
from uvmd.host.doing import Doing, Earlier, doing
from uvmd.host.exits import Exits
from uvmd.host.journal import Journal
from uvmd.host.memory_limit import MemoryLimit
from uvmd.host.mounted import ContainerMounts
from uvmd.host.network import Network
from uvmd.host.operations import (
    constraints,
    create,
    delete,
    end_all,
    exec,
    external,
    interrupted,
    name_servers,
    properties,
    resize,
    signal,
    stacks,
    start,
)
from uvmd.host.parts import HostSettings, Link, Lock, MonitorState, Policy
from uvmd.host.pods import Pods
from uvmd.host.pools import Pools
from uvmd.host.processes import Done
from uvmd.host.registry import Registry
from uvmd.host.requests import NULL_ID, ContainerExit, ExecuteRequest
from uvmd.host.shapers import Shapers
from uvmd.host.timers import Timers
from uvmd.host.usage import Usages
from uvmd.host.view import ContainerView
from uvmd.linux import cgroup_setup, proc
from uvmd.linux.cgroup_moves import Moves
from uvmd.linux.cgroups import Cgroups
from uvmd.linux.notices import Notices
from uvmd.oci.runtime import OciRuntime

log = logging.getLogger(__name__)


class Modify(Protocol):
    """What serves ModifySettings (``host.modify.Modifier``)."""

    def modify(
        self, container_id: str, request_type: str, resource_type: str, settings: Any, has_settings: bool
    ) -> None: ...

    def settle(self, request: int, *, failed: bool) -> None: ...


class Host:
    """See the module.

    ``modifier`` is set by the composition before the first request: it needs the host itself.
    """

    def __init__(
        self,
        settings: HostSettings,
        link: Link,
        gate: Policy,
        lock: Lock,
        shapers: Shapers | None = None,
        network: Network | None = None,
        mounted: ContainerMounts | None = None,
    ) -> None:
        for name in ("", "/containers", "/console"):
            os.makedirs(settings.run_dir + name, mode=0o700, exist_ok=True)
        mounts = proc.mounts()
        self.settings = settings
        self.sequential = settings.sequential
        self.pools = Pools()
        self.timers = Timers(link.wake)
        self.modifier: Modify | None = None
        registry, journal = Registry(), Journal(settings.run_dir)
        cgroups = cgroup_setup.cgroups_of(mounts)
        self._moves = Moves(cgroups, self.pools.find.submit)
        self._link = link
        self._exits = Exits(registry, journal, link, cgroups, self.timers)
        self._context = Context(
            settings=settings,
            slots=link,
            runtime=OciRuntime(
                link,
                name=settings.runtime,
                work=f"{settings.run_dir}/containers",
                no_pivot=proc.root_is_initramfs(mounts),
                timeout_s=settings.runtime_timeout_s,
                path=settings.path,
            ),
            gate=gate,
            lock=lock,
            registry=registry,
            journal=journal,
            cgroups=cgroups,
            timers=self.timers,
            exits=self._exits,
            pods=Pods(),
            shapers=shapers or Shapers({}),
            network=network or Network(),
            mounts=mounted or ContainerMounts(),
        )
        self._memory_limit = MemoryLimit(cgroups, settings.pods_cgroup, settings.reserve_bytes)
        self.containers = ContainerView(self._context.registry)
        usages = Usages(cgroups, registry)
        self._sources: dict[str, Callable[[str], Any]] = {
            "uvmd.ps": lambda argument: properties.list_containers(self._context),
            "uvmd.usage": lambda argument: usages.rows(),
            "uvmd.mounts": lambda argument: self._context.mounts.rows(self.containers),
        }

    # Start and stop

    def setup(self) -> None:
        """Prepare the cgroups and keep the pods' limit fresh.

        Raises:
            Failed: the cgroup of the pods cannot be made or limited.
        """
        prepare_for_runtime(self._context.cgroups, self._context.runtime)
        self._memory_limit.setup()
        self._memory_limit.keep_fresh(self.timers)

    def recover(self, state: MonitorState) -> None:
        """Take up what an earlier daemon left. On the poll thread, before the bridge is opened."""
        for finish in recovery.recover(self._context, state):
            self.pools.work.submit(finish)

    def mismatches(self, claims: Sequence[Claim], under_way: Sequence[str]) -> Iterator[str]:
        """Yield what of the mount table and the journal the kernel does not have.

        Before the first request; ``under_way`` is what interrupted changes are about.
        """
        from uvmd.host import verify

        containers = self._context.registry.containers()
        going = {container.id for container in containers if container.deleting}
        yield from verify.mounts([one for one in claims if one.owner_container not in going], under_way)
        yield from verify.processes(self._context.cgroups, containers)

    def warm_up(self) -> None:
        """Load what the first request would otherwise wait for."""
        import uvmd.linux.cgroup_stats
        import uvmd.linux.syscalls  # noqa: F401

    def end_all(self) -> None:
        """Kill and delete every container; for a daemon that takes them along. Blocks."""
        end_all.end_all(self._context)

    # News of the monitor, on the poll thread

    def exited(self, slot: int, pid: int, status: int) -> None:
        """A slot's process was reaped: exit code, or minus the signal."""
        self._exits.exited(slot, pid, status)

    def drained(self, slot: int) -> None:
        """All streams of a slot are done."""
        self._exits.drained(slot)

    def on_container_exit(self, listener: Callable[[ContainerExit], None]) -> None:
        """Have ``listener`` called, on the poll thread, once for every container that ends."""
        self._exits.listen(listener)

    def on_container_event(self, listener: Callable[[ContainerEvent], None]) -> None:
        """Have ``listener`` called with everything that happens to containers from now on.

        On the thread that did it, so it must return at once.
        """

        def tell(kind: str, container: Container) -> None:
            init = container.init
            pid, status = (0, None) if init is None else (init.pid, init.status if kind == "exited" else None)
            pod_id = container.role.pod_id or container.id
            listener(ContainerEvent(kind, container.id, pod_id, time.time(), pid, status))

        self._context.registry.watch(tell)

    def on_out_of_memory(self, notices: Notices, listener: memory_events.Listener) -> None:
        """Have ``listener`` called when the kernel kills in a container for lack of memory.

        For the containers that are there and all that come. On a thread that must not be held up.
        """
        memory_events.follow(self._context.registry, self._context.cgroups, notices, listener)

    def watch_change(self, keys: Collection[str]) -> Callable[[Undo], None]:
        """Look at what follows from a change of resources, before it; the function follows, after it."""
        return name_servers.watch(self._context, keys)

    @property
    def cgroups(self) -> Cgroups:
        """The machine's cgroup hierarchies."""
        return self._context.cgroups

    # Requests

    def await_request(self, request: int) -> Earlier:
        """Wait until nothing that an earlier daemon began for a request is under way."""
        return self._link.await_request(request)

    def settle_request(self, what: Doing, *, failed: bool) -> None:
        """A request that was asked for again has its outcome: take away what is left of before."""
        for finish in interrupted.settle(self._context, what, failed=failed):
            try:
                # It waits for news, which the poll thread must take.
                self.pools.work.submit(finish)
            except RuntimeError as error:
                self._context.gate.mark(f"what an interrupted request had begun is still there: {error}")
        if self.modifier is not None:
            self.modifier.settle(what.number, failed=failed)

    @property
    def strict(self) -> bool:
        """Whether a security policy is in force."""
        return self._context.gate.strict

    def create_container(
        self, container_id: str, *, bundle: str, scratch: str, spec: Any, activity_id: str
    ) -> None:
        """See ``operations.create``."""
        self._moves.expect()
        create.create(
            self._context,
            container_id,
            bundle_path=bundle,
            scratch=scratch,
            spec=spec,
            activity_id=activity_id,
        )

    def start_container(self, container_id: str) -> None:
        """Do nothing, not even look for the container, as the reference (spec bridge.md 6.3).

        The start is the first Execute without a process.
        """

    def execute(self, container_id: str, request: ExecuteRequest) -> int:
        """Start init, an exec, or a process in the VM; return its pid."""
        starts_init = request.oci_process is None and not request.in_vm and container_id != NULL_ID
        if starts_init:
            return start.start(self._context, container_id, request)
        if not doing().again:  # what an earlier daemon has begun is gone on with
            self._context.registry.require_room()
        self._moves.expect()
        if request.in_vm or container_id == NULL_ID:
            return external.execute(self._context, request)
        return exec.execute(self._context, container_id, request)

    def wait(self, container_id: str, pid: int, timeout_ms: int, done: Done) -> None:
        """Call ``done`` once with the exit code, or with the error that kept it from being known.

        On the poll thread. A code that is there already, or an error, is told before it returns.
        """
        self._exits.wait(container_id, pid, timeout_ms, done)

    def signal(self, container_id: str, pid: int, signal_number: int) -> None:
        """See ``operations.signal``."""
        signal.send(self._context, container_id, pid, signal_number)

    def shutdown(self, container_id: str, *, forced: bool) -> None:
        """Send SIGTERM or SIGKILL to init."""
        signal.shutdown(self._context, container_id, forced=forced)

    def resize(self, container_id: str, pid: int, *, width: int, height: int) -> None:
        """See ``operations.resize``."""
        resize.resize(self._context, container_id, pid, width=width, height=height)

    def properties(self, container_id: str, types: Sequence[str]) -> dict[str, Any]:
        """See ``operations.properties``."""
        return properties.properties(self._context, container_id, types, self._sources)

    def serve_property(self, name: str, source: Callable[[str], Any]) -> None:
        """Serve another ``uvmd.*`` property of the VM. Before the first request.

        A type ``NAME:ARGUMENT`` is asked for with what stands behind the colon.
        """
        self._sources[name] = source

    def modify(
        self, container_id: str, request_type: str, resource_type: str, settings: Any, has_settings: bool
    ) -> None:
        """See ``host.modify``."""
        if self.modifier is None:
            raise Refused("no resource types are served")
        self.modifier.modify(container_id, request_type, resource_type, settings, has_settings)

    def dump_stacks(self) -> str:
        """See ``operations.stacks``."""
        return stacks.dump_stacks(self._context)

    def delete_container(self, container_id: str) -> None:
        """See ``operations.delete``."""
        delete.delete(self._context, container_id)

    def power_off(self) -> bool:
        """See ``host.power``."""
        return power.power_off(self.settings.agent)

    # For the resource types of core

    def require_created(self, container_id: str) -> Container:
        """Return the container, or raise ContainerNotFound or InvalidState."""
        return self._context.registry.get(container_id)

    def update_constraints(self, container_id: str, resources: dict[str, Any]) -> None:
        """See ``operations.constraints``."""
        constraints.update(self._context, container_id, resources)

    def refresh_pod_limit(self) -> None:
        """Set the memory limit of the pods anew from the VM's memory."""
        self._memory_limit.refresh()


def prepare_for_runtime(cgroups: Cgroups, runtime: OciRuntime) -> None:
    """Make a hybrid machine fit for crun: no controller may be left in the version 2 tree.

    Those that are left are mounted as version 1 hierarchies. Only then, since runc does not mind.

    Raises:
        Failed: a controller could not be mounted.
    """
    if not cgroups.hybrid or os.path.basename(runtime.program or "") != "crun":
        return
    left = cgroup_setup.left_over_controllers(cgroups)
    if not left:
        return
    try:
        cgroup_setup.mount_controllers(cgroups, left)
    except OSError as error:
        raise Failed(
            f"cgroup controllers {' '.join(left)} for crun: {error.filename}: {error.strerror}"
        ) from error
    log.info(
        "cgroup controllers mounted for crun, which refuses hybrid machines", extra={"controllers": left}
    )
