"""Taking up what an earlier daemon left: its journal against the monitor's slots and the kernel.

The monitor says which processes it still holds and how those that ended did; the journal says
what they are. What the journal has begun and not finished is undone or finished; what only one
of the two knows goes.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from uvmd.errors import UvmdError
from uvmd.host.containers import Container, State
from uvmd.host.context import Context
from uvmd.host.exits import UNKNOWN_STATUS
from uvmd.host.journal import Entry, read_container, read_process
from uvmd.host.operations import bundle, context_dir, delete, pod_sources, runtime_undo, sandbox, written
from uvmd.host.parts import MonitorState
from uvmd.host.pods import Pod
from uvmd.host.processes import Process
from uvmd.host.requests import is_container_id
from uvmd.linux import paths, proc

log = logging.getLogger(__name__)

# A runtime call that the earlier daemon left under way: most take a few milliseconds.
_CALLS_S = 2.0


class SlotState(Protocol):
    """What the monitor reports of a slot."""

    @property
    def slot(self) -> int: ...
    @property
    def pid(self) -> int: ...
    @property
    def status(self) -> int | None: ...
    @property
    def drained(self) -> bool: ...
    @property
    def label(self) -> str: ...


def wait_for_calls(state: MonitorState, ask_again: Callable[[], MonitorState]) -> MonitorState:
    """Return the monitor's state once no call of a runtime that makes a process is under way.

    Such a call shows as a slot without a process. One that was opened and not used looks the
    same, so this does not wait for long.
    """
    deadline = time.monotonic() + _CALLS_S
    while any(not slot.pid for slot in state.slots) and time.monotonic() < deadline:
        time.sleep(0.05)
        state = ask_again()
    return state


def recover(ctx: Context, state: MonitorState) -> list[Container]:
    """Rebuild the registry. Runs on the poll thread before the bridge is opened.

    Returns the containers whose removal was under way, for :func:`finish_delete`; that waits
    for news which the poll thread must take, so it belongs on another thread.
    """
    slots: dict[int, SlotState] = {slot.slot: slot for slot in state.slots}
    claimed: set[int] = set()
    settled: list[Process] = []
    unfinished: list[Container] = []
    entries = _read(ctx)
    taken = {container.role.namespace for _, container, _ in entries if container.state is not State.CREATING}
    for entry, container, execs in entries:
        if container.state is State.CREATING:
            _unwind(ctx, container, taken)
            if container.init is not None:
                claimed.add(container.init.slot)
            continue
        settled += _take_up(ctx, container, execs, slots, claimed)
        if entry["doing"] == "deleting":
            unfinished.append(container)
            container.deleting = True
    settled += _take_up_external(ctx, ctx.journal.external(), slots, claimed)
    for slot in slots.keys() - claimed:
        _drop_slot(ctx, slots[slot])
    _sweep(ctx)
    for process in settled:
        ctx.exits.settle(process)
    return unfinished


def _read(ctx: Context) -> list[tuple[Entry, Container, list[Process]]]:
    """Read the journal of the containers; what makes no sense is left out."""
    found = []
    for entry in ctx.journal.containers():
        try:
            found.append((entry, read_container(entry), [read_process(one) for one in entry["execs"]]))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            log.error("journal entry makes no sense, ignoring", extra={"error": repr(error)})
    return found


def _unwind(ctx: Context, container: Container, taken: set[str]) -> None:
    """Undo a create that was under way. Adapters in a ``taken`` namespace are another container's."""
    log.warning("a create was interrupted, undoing it", extra={"container": container.id})
    os.makedirs(ctx.work_dir(container.id), mode=0o700, exist_ok=True)
    try:
        runtime_undo.destroy(ctx, container)
        pod_sources.release(ctx, container)
        if container.role.namespace not in taken:
            ctx.network.detach(container.role.namespace)
        context_dir.remove(container)
        sandbox.undo_interrupted(ctx, container)
        _remove_bundle(container)
    except (UvmdError, OSError) as error:
        ctx.gate.mark(f"undo of an interrupted create of {container.id}: {error}")
    delete.forget(ctx, container)


def _remove_bundle(container: Container) -> None:
    """Remove what the create wrote: its config.json, and the bundle if it made that."""
    written.take_back(container.bundle, bundle.CONFIG, bundle.CONFIG in container.existed)
    if container.made_bundle:
        paths.remove_empty([container.bundle])


def _take_up(
    ctx: Context, container: Container, execs: list[Process], slots: dict[int, SlotState], claimed: set[int]
) -> list[Process]:
    ctx.registry.add(container)
    _take_up_pod(ctx, container)
    processes = []
    init = container.init
    if init is not None:
        _adopt(ctx, init, slots, claimed)
        processes.append(init)
    for process in execs:
        # One that the monitor no longer has was acknowledged: nobody can ask for it again.
        if process.slot in slots:
            _adopt(ctx, process, slots, claimed)
            ctx.registry.started(process, process.pid)
            processes.append(process)
    if container.state is State.CREATED and init is not None and not init.over:
        _ask_whether_started(ctx, container)
    return processes


def _take_up_pod(ctx: Context, container: Container) -> None:
    role = container.role
    group = ctx.pod_cgroup(role.pod_id)
    if container.is_sandbox:
        ctx.pods.restore(Pod(role.pod_id, container.id, container.sandbox_root, group, role.host_network))
    elif role.in_pod:
        # The sandbox's entry may come later, or be lost; a workload is a member all the same.
        ctx.pods.stand_in(Pod(role.pod_id, "", container.sandbox_root, group), container.id)


def _adopt(ctx: Context, process: Process, slots: dict[int, SlotState], claimed: set[int]) -> None:
    """Give a process what the monitor knows of its end."""
    ctx.registry.expect(process)
    found = slots.get(process.slot)
    if found is not None:
        claimed.add(process.slot)
        process.status, process.drained = found.status, found.drained
        return
    # Its parent is gone, so nobody will ever learn its exit status; it must not run on unseen.
    log.error(
        "process is unknown to the monitor", extra={"pid": process.pid, "container": process.container_id}
    )
    if process.pid and proc.start_time(process.pid) == process.start_time:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.status, process.drained = UNKNOWN_STATUS, True


def _ask_whether_started(ctx: Context, container: Container) -> None:
    """A start may have happened after the last entry was written."""
    try:
        if ctx.runtime.status(container.id) == "running":
            ctx.registry.advance(container, State.RUNNING)
            ctx.journal.save(container)
    except (UvmdError, OSError) as error:
        log.error(
            "runtime could not be asked, ignoring", extra={"container": container.id, "error": str(error)}
        )


def finish_delete(ctx: Context, container: Container) -> None:
    """Go on with a removal that an earlier daemon began."""
    log.warning("a delete was interrupted, finishing it", extra={"container": container.id})
    for error in delete.take_down(ctx, container):
        log.error("interrupted delete left something behind", extra={"error": str(error)})


def _take_up_external(
    ctx: Context, entries: Iterable[Entry], slots: dict[int, SlotState], claimed: set[int]
) -> list[Process]:
    processes = []
    for entry in entries:
        try:
            process = read_process(entry["process"])
        except (KeyError, ValueError, TypeError) as error:
            log.error("journal entry makes no sense, ignoring", extra={"error": repr(error)})
            continue
        if process.slot not in slots:
            ctx.journal.remove_external(process.slot)
            continue
        _adopt(ctx, process, slots, claimed)
        ctx.registry.started(process, process.pid)
        processes.append(process)
    return processes


def _drop_slot(ctx: Context, found: SlotState) -> None:
    """End a process that no record knows, and the container that it may be the init of."""
    log.warning("slot without a record, ending its process", extra={"slot": found.slot})
    try:
        ctx.slots.kill(found.slot, signal.SIGKILL)
    except OSError:
        pass
    ctx.slots.release(found.slot)
    if not is_container_id(found.label) or ctx.registry.find(found.label) is not None:
        return
    # Its entry could not be read: the runtime and the cgroup still hold it.
    lost = Container(found.label, "", cgroup=_find_cgroup(ctx, found.label))
    os.makedirs(ctx.work_dir(lost.id), mode=0o700, exist_ok=True)
    try:
        runtime_undo.destroy(ctx, lost)
    except (UvmdError, OSError) as error:
        ctx.gate.mark(f"container {lost.id} has no record and could not be removed: {error}")


def _find_cgroup(ctx: Context, container_id: str) -> str:
    """Return the cgroup of a container that is nowhere recorded: its own, or one in a pod's."""
    for pod in ctx.pods.pods():
        group = f"{pod.cgroup}/{container_id}"
        if any(os.path.isdir(directory) for directory in ctx.cgroups.directories(group)):
            return group
    return ctx.pod_cgroup(container_id)


def _sweep(ctx: Context) -> None:
    """Remove working directories of containers that are no more: they would refuse a new create."""
    containers = f"{ctx.settings.run_dir}/containers"
    for name in os.listdir(containers):
        if ctx.registry.find(name) is None:
            try:
                pod_sources.remove_work_dir(f"{containers}/{name}")
            except OSError as error:
                log.error("working directory could not be removed, ignoring", extra={"errno": error.errno})
