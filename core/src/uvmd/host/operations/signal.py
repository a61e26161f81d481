"""Signals, and the two shutdowns, which are signals to init (spec bridge.md 6.4, 6.7)."""

from __future__ import annotations

import signal as signals

from uvmd.errors import ContainerNotFound, ContainerStopped, Failed, ProcessNotFound
from uvmd.host.containers import EXIT_TYPES, Container
from uvmd.host.context import Context
from uvmd.host.processes import Kind, Process
from uvmd.host.requests import NULL_ID


def send(ctx: Context, container_id: str, pid: int, signal: int) -> None:
    """Send a signal to one process; 0 stands for SIGKILL.

    Raises:
        ContainerNotFound, InvalidState, ProcessNotFound: it is not known, or gone.
        PolicyDenied: the policy said no.
        Failed: any other errno, an impossible signal for one.
    """
    number = signal or int(signals.SIGKILL)
    process = find_process(ctx, container_id, pid)
    container = ctx.registry.get(container_id) if process.kind is Kind.INIT else None
    with ctx.changing(who=f"signal {container_id}"):
        ctx.gate.ask(
            "signal_container_process",
            {
                "containerID": container_id,
                "signal": number,
                "isInitProcess": container is not None,
                "argList": list(process.args),
            },
        )
        _kill(ctx, container, process, number)


def shutdown(ctx: Context, container_id: str, *, forced: bool) -> None:
    """Send SIGTERM, or SIGKILL when forced, to init.

    Raises:
        ContainerNotFound, InvalidState, PolicyDenied: as :func:`send`.
        ContainerStopped: init is gone.
    """
    container = ctx.registry.get(container_id)
    with ctx.changing(who=f"shutdown {container_id}"):
        ctx.gate.ask("shutdown_container", {"containerID": container_id})
        if container.init is None:
            raise ContainerStopped(f"container {container_id} has no process")
        try:
            _kill(ctx, container, container.init, int(signals.SIGKILL if forced else signals.SIGTERM))
        except ProcessNotFound as error:
            raise ContainerStopped(f"container {container_id} has stopped") from error


def find_process(ctx: Context, container_id: str, pid: int) -> Process:
    """Return a process for a signal or a resize.

    Raises:
        ContainerNotFound: the container, or the external process: the reference looks for a
            container of the VM's id, and hosts know that answer.
    """
    try:
        return ctx.registry.process(container_id, pid)
    except ProcessNotFound as error:
        if container_id == NULL_ID:
            raise ContainerNotFound(str(error)) from None
        raise


def _kill(ctx: Context, container: Container | None, process: Process, number: int) -> None:
    """Send the signal and keep init's exit type in step with what was delivered."""
    before = ""
    if container is not None and number in EXIT_TYPES:
        # Set before the signal: the exit may be told before kill has returned here.
        before, container.exit_type = container.exit_type, EXIT_TYPES[number]
    try:
        ctx.slots.kill(process.slot, number)
    except OSError as error:
        if container is not None and before:
            container.exit_type = before
        if isinstance(error, ProcessLookupError):
            raise ProcessNotFound(f"process {process.pid} is gone") from error
        raise Failed(f"signal {number} to process {process.pid}: {error.strerror or error}") from error
    if before:
        # Whoever ends a container no longer needs its output sent to a host that is away.
        ctx.slots.stop_redial(process.slot)
