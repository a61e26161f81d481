"""What happens when processes end. Everything here runs on the poll thread.

An exit code is shown once the process is reaped *and* its streams are drained (spec
containers.md 9.5): the host closes the streams when it sees the code.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from uvmd.errors import UvmdError, WaitTimeout
from uvmd.host.containers import Container, State
from uvmd.host.journal import Journal
from uvmd.host.parts import Slots
from uvmd.host.processes import Done, ExitCode, Kind, Process, Waiter, exit_code_of
from uvmd.host.registry import Registry
from uvmd.host.requests import NO_TIMEOUT_MS, ContainerExit
from uvmd.host.timers import Timers
from uvmd.linux.cgroups import Cgroups

log = logging.getLogger(__name__)

# Shown as 4294967295, the reference's -1 for a process that it could not wait for (9.5).
UNKNOWN_STATUS = 0xFFFFFFFF

Listener = Callable[[ContainerExit], None]


class Exits:
    """Takes the monitor's news, tells waiters and listeners, and lets go of what is over."""

    def __init__(
        self, registry: Registry, journal: Journal, slots: Slots, cgroups: Cgroups, timers: Timers
    ) -> None:
        self._registry = registry
        self._journal = journal
        self._slots = slots
        self._cgroups = cgroups
        self._timers = timers
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Have ``listener`` called for every container that ends."""
        self._listeners.append(listener)

    def exited(self, slot: int, pid: int, status: int) -> None:
        """A slot's process was reaped."""
        process = self._registry.by_slot(slot)
        if process is None:
            log.debug("exit of a slot without a record", extra={"slot": slot, "pid": pid})
            return
        process.status = status
        if process.kind is Kind.INIT:
            self._init_gone(process)
        self._settle(process)

    def drained(self, slot: int) -> None:
        """All relays of a slot are done."""
        process = self._registry.by_slot(slot)
        if process is not None:
            process.drained = True
            self._settle(process)

    def settle(self, process: Process) -> None:
        """Look at a process again whose news came when nobody could be told."""
        self._settle(process)

    def let_go(self, process: Process, *, told: bool) -> None:
        """Waits that an earlier daemon had not answered are served: forget it when it is done.

        ``told``: an earlier daemon told the host of the end.
        """
        process.held = False
        process.delivered = process.delivered or told
        self._release_if_done(process)

    def give_up(self, process: Process) -> None:
        """Take a process for ended whose streams do not drain, or whose end nobody will learn."""
        if process.status is None:
            process.status = UNKNOWN_STATUS
        process.drained = True
        self._settle(process)

    def wait(self, container_id: str, pid: int, timeout_ms: int, done: Done) -> None:
        """Call ``done`` with the exit code, or with an error; see ``Host.wait``."""
        try:
            process = self._registry.process(container_id, pid)
        except UvmdError as error:
            done(error)
            return
        if process.exit_code is not None:
            done(_told(process, process.exit_code))
            process.delivered = True
            self._release_if_done(process)
            return
        if timeout_ms == 0:
            done(_timed_out(process))
            return
        waiter = Waiter(done)
        if timeout_ms != NO_TIMEOUT_MS:
            waiter.timer = self._timers.call_later(
                timeout_ms / 1000, lambda: self._time_is_up(process, waiter)
            )
        process.waiters.add(waiter)

    def _time_is_up(self, process: Process, waiter: Waiter) -> None:
        if waiter in process.waiters:
            process.waiters.remove(waiter)
            waiter.done(_timed_out(process))
            self._release_if_done(process)

    def _init_gone(self, process: Process) -> None:
        """Without a pid namespace of its own the rest of a container outlives its init."""
        container = self._container(process)
        if container is None or container.owns_pid_namespace or not container.cgroup:
            return
        try:
            self._cgroups.kill(container.cgroup)
        except OSError as error:
            log.error(
                "processes of a finished container could not be killed, ignoring",
                extra={"container": container.id, "errno": error.errno},
            )

    def _settle(self, process: Process) -> None:
        if process.status is None or not process.drained:
            return
        if process.kind is Kind.INIT:
            container = self._container(process)
            # Until Create has succeeded there is nothing to report: it may yet be undone.
            if container is None or container.state is State.CREATING:
                return
            process.exit_code = exit_code_of(process.status)
            self._registry.advance(container, State.TERMINATED)
            self._notify(container)
        else:
            process.exit_code = exit_code_of(process.status)
        self._deliver(process)

    def _notify(self, container: Container) -> None:
        if container.notified:
            return
        # The monitor knows with the frame that it was told, and with the slot so does the next
        # daemon: a host takes a second notification for one container as fatal. The journal is
        # for the time after the monitor.
        container.notified = True
        slot = container.init.slot if container.init is not None else 0
        event = ContainerExit(container.id, container.activity_id, container.exit_type, slot)
        for listener in self._listeners:
            listener(event)
        self._save(container)

    def _deliver(self, process: Process) -> None:
        code = process.exit_code
        assert code is not None
        while process.waiters:
            waiter = process.waiters.pop()
            if waiter.timer is not None:
                waiter.timer.cancel()
            waiter.done(_told(process, code))
            process.delivered = True
        self._release_if_done(process)

    def _release_if_done(self, process: Process) -> None:
        """Forget an exec or external process once its code was delivered and nobody waits.

        Init stays as long as its container.
        """
        if process.exit_code is None or process.waiters or process.kind is Kind.INIT or process.held:
            return
        if not process.delivered and not self._orphaned(process):
            return
        if self._registry.by_slot(process.slot) is not process:
            return
        self._registry.forget(process)
        self._slots.release(process.slot)
        if process.kind is Kind.EXTERNAL:
            self._journal.remove_external(process.slot)

    def _orphaned(self, process: Process) -> bool:
        return process.kind is Kind.EXEC and self._registry.find(process.container_id) is None

    def _container(self, process: Process) -> Container | None:
        container = self._registry.find(process.container_id)
        return container if container is not None and container.init is process else None

    def _save(self, container: Container) -> None:
        # ``deleting`` alone may yet be refused; a removal that has begun kills init, and goes on.
        begun = container.deleting and container.deleted_by
        try:
            self._journal.save(container, doing="deleting" if begun else "")
        except OSError as error:
            log.error(
                "journal could not be written, ignoring",
                extra={"container": container.id, "errno": error.errno},
            )


def _told(process: Process, code: int) -> ExitCode:
    """Of an init's end the host is told apart from its code."""
    told = ExitCode(code)
    if process.kind is not Kind.INIT:
        told.slot = process.slot
    return told


def _timed_out(process: Process) -> WaitTimeout:
    return WaitTimeout(f"process {process.pid} did not exit in time")
