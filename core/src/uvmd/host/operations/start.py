"""Start a created container's init (spec containers.md 11.2). No policy question: create asked."""

from __future__ import annotations

import os
import signal

from uvmd.errors import ContainerStopped, Failed
from uvmd.host.containers import Container, State
from uvmd.host.context import Context
from uvmd.host.doing import doing
from uvmd.host.processes import Process
from uvmd.host.requests import ExecuteRequest
from uvmd.stdio.tee import open_tee


def start(ctx: Context, container_id: str, request: ExecuteRequest) -> int:
    """Connect init's streams, then let it run. Returns its pid.

    Raises:
        ContainerNotFound, InvalidState: unknown, being created, or started before.
        ContainerStopped: init is gone already.
        Failed: it could not be recorded, or the streams not be connected; the container can be
            started again.
        RuntimeFailed: the runtime could not start it; its init is killed, because its
            streams are spent.
    """
    container = ctx.registry.get(container_id)
    # What was done of it by an earlier daemon is done once: connecting and starting know.
    again = doing().again and any(name.startswith("start") for name in doing().done)
    with ctx.registry.starting(container, again=again):
        init = container.init
        if init is None or (init.over and not again):
            raise ContainerStopped(f"container {container_id} has stopped")
        try:
            # Before init runs: what cannot be recorded afterwards would be an init that runs and
            # that the next daemon takes for one that waits.
            ctx.journal.prepare(container, State.RUNNING)
        except OSError as error:
            raise Failed(f"start {container_id}: {error.filename}: {error.strerror}") from error
        try:
            _connect(ctx, container, init, request)
            _run(ctx, init, container_id)
        except BaseException:
            ctx.journal.drop(container_id)
            raise
        if ctx.registry.advance(container, State.RUNNING):
            ctx.journal.commit(container_id)
        else:
            ctx.journal.drop(container_id)  # its end is recorded, or about to be
        return init.pid


def _run(ctx: Context, init: Process, container_id: str) -> None:
    try:
        ctx.runtime.start(container_id)
    except BaseException:
        kill_init(ctx, init)
        raise


def _connect(ctx: Context, container: Container, init: Process, request: ExecuteRequest) -> None:
    tee: int | None = None
    try:
        if container.tee_log:
            tee = open_tee(container.logs, container.tee_log)
        ctx.slots.connect(
            init.slot, request.ports, redial=True, tee_fd=tee, discard=not container.stdio_allowed
        )
    except OSError as error:
        raise Failed(f"start {container.id}: streams: {error.strerror or error}") from error
    finally:
        if tee is not None:
            os.close(tee)


def kill_init(ctx: Context, init: Process | None) -> None:
    """Kill an init, if there is one and it lives."""
    if init is None:
        return
    try:
        ctx.slots.kill(init.slot, signal.SIGKILL)
    except OSError:
        pass  # gone already
