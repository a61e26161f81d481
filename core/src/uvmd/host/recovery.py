"""Taking up what an earlier daemon left: its journal against the monitor's slots and the kernel.

The monitor says which processes it still holds and how those that ended did; the journal says
what they are. What the journal has begun and not finished is undone or finished; what only one
of the two knows goes.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from uvmd.errors import UvmdError
from uvmd.host import verify
from uvmd.host.containers import EXIT_TYPES, Container, State
from uvmd.host.context import Context
from uvmd.host.exits import UNKNOWN_STATUS
from uvmd.host.journal import Entry, read_container, read_process
from uvmd.host.operations import interrupted, pod_sources, runtime_undo
from uvmd.host.parts import MonitorState
from uvmd.host.pods import Pod
from uvmd.host.processes import Process
from uvmd.host.requests import is_container_id
from uvmd.linux import proc

log = logging.getLogger(__name__)

# By then waits that an earlier daemon has left unanswered are served.
_HELD_S = 5.0


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
    @property
    def request(self) -> int: ...
    @property
    def told(self) -> bool: ...
    @property
    def signalled(self) -> int: ...


def recover(ctx: Context, state: MonitorState) -> list[Callable[[], None]]:
    """Rebuild the registry. Runs on the poll thread before the bridge is opened.

    Returns what is still to be done of what was under way and will not be asked for again.
    That waits for news which the poll thread must take, so it belongs on other threads.
    """
    slots: dict[int, SlotState] = {slot.slot: slot for slot in state.slots}
    # What was made for a request that has no answer is taken up with that.
    claimed = {slot.slot for slot in state.slots if slot.request in state.requests}
    settled: list[Process] = []
    unfinished: list[Callable[[], None]] = []
    for entry, container, execs in _read(ctx):
        if container.state is State.CREATING:
            ctx.registry.add(container)
            if container.init is not None:
                claimed.add(container.init.slot)
            if container.created_by not in state.requests:
                unfinished.append(partial(interrupted.undo_create, ctx, container))
            continue
        settled += _take_up(ctx, container, execs, slots, claimed)
        if entry["doing"] == "deleting":
            container.deleting = True
            if container.deleted_by not in state.requests:
                unfinished.append(partial(interrupted.finish_delete, ctx, container))
    settled += _take_up_external(ctx, ctx.journal.external(), slots, claimed)
    # A later release may have written it; what it knew, a strict VM's policy may have counted.
    verify.judge(ctx.gate, ctx.journal.unreadable)
    # A slot that was not opened yet, or that another monitor had, stands in the journal alone:
    # given to another process, it would go when this container does.
    inits = [container.init for container in ctx.registry.containers()]
    ctx.slots.skip_slots(max((init.slot for init in inits if init is not None), default=0))
    for slot in slots.keys() - claimed:
        _drop_slot(ctx, slots[slot])
    _sweep(ctx)
    for process in settled:
        process.held = True
        ctx.exits.settle(process)
    told = {number for number, slot in slots.items() if slot.told}
    ctx.timers.call_later(_HELD_S, partial(_let_go, ctx, settled, told))
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


def _let_go(ctx: Context, processes: list[Process], told: set[int]) -> None:
    for process in processes:
        ctx.exits.let_go(process, told=process.slot in told)
    # By now what was under way has ended, too.
    for container in ctx.registry.containers():
        try:
            ctx.runtime.remove_left_logs(container.id)
        except OSError as error:
            facts = {"container": container.id, "errno": error.errno}
            log.warning("a runtime's log could not be removed, ignoring", extra=facts)


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
        if (found := _slot_of(init, slots)) is not None:
            container.notified = found.told
            container.exit_type = EXIT_TYPES.get(found.signalled, container.exit_type)
        else:
            container.created_by = 0  # another monitor's number; this one's began anew
    for process in execs:
        # One that the monitor no longer has was acknowledged: nobody can ask for it again.
        if _slot_of(process, slots) is not None:
            _adopt(ctx, process, slots, claimed)
            ctx.registry.started(process, process.pid)
            processes.append(process)
    return processes


def _take_up_pod(ctx: Context, container: Container) -> None:
    role = container.role
    group = ctx.pod_cgroup(role.pod_id)
    if container.is_sandbox:
        ctx.pods.restore(Pod(role.pod_id, container.id, container.sandbox_root, group, role.host_network))
    elif role.in_pod:
        # The sandbox's entry may come later, or be lost; a workload is a member all the same.
        ctx.pods.stand_in(Pod(role.pod_id, "", container.sandbox_root, group), container.id)


def _slot_of(process: Process, slots: dict[int, SlotState]) -> SlotState | None:
    """Return the process's slot; one of another monitor's life may have had its number."""
    found = slots.get(process.slot)
    return found if found is not None and found.pid == process.pid else None


def _adopt(ctx: Context, process: Process, slots: dict[int, SlotState], claimed: set[int]) -> None:
    """Give a process what the monitor knows of its end."""
    found = _slot_of(process, slots)
    if found is not None:
        ctx.registry.expect(process)
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
        if _slot_of(process, slots) is None:
            ctx.journal.remove_external(process.slot)
            continue
        _adopt(ctx, process, slots, claimed)
        ctx.registry.started(process, process.pid)
        processes.append(process)
    return processes


def _drop_slot(ctx: Context, found: SlotState) -> None:
    """End a process that no record knows, and the container that it may be the init of."""
    interrupted.drop_slot(ctx, found.slot)
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
