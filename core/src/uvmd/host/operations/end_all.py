"""The end of a daemon that takes its containers along."""

from __future__ import annotations

import logging

from uvmd.errors import UvmdError
from uvmd.host.containers import Container
from uvmd.host.context import Context
from uvmd.host.operations.delete import take_down
from uvmd.host.operations.start import kill_init

log = logging.getLogger(__name__)

_CREATE_S = 10.0
_KILL_S = 5.0


def end_all(ctx: Context) -> None:
    """Kill and delete every container, and admit no new one. What fails is logged."""
    ctx.registry.close()
    containers = [found for found in ctx.registry.containers() if ctx.registry.wait_created(found, _CREATE_S)]
    for container in containers:
        kill_init(ctx, container.init)  # all at once, so that they end side by side
    # A sandbox last: its pod's directories are in its workloads' mounts.
    for container in sorted(containers, key=lambda found: found.is_sandbox):
        try:
            _end(ctx, container)
        except UvmdError as error:
            _warn(container, error)
    # The monitor ends processes in the VM when it goes itself, which is next.
    for process in ctx.registry.external():
        ctx.journal.remove_external(process.slot)
    ctx.cgroups.remove_if_empty(ctx.settings.pods_cgroup)


def _end(ctx: Context, container: Container) -> None:
    ctx.registry.wait_terminated(container, ctx.settings.drain_grace_s + _KILL_S)
    with ctx.registry.deleting(container, _KILL_S):
        for error in take_down(ctx, container):
            _warn(container, error)


def _warn(container: Container, error: UvmdError) -> None:
    log.warning(
        "container could not be taken down whole, ignoring",
        extra={"container": container.id, "error": str(error)},
    )
