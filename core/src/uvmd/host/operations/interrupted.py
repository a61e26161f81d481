"""What an earlier daemon was doing when it died: undone, finished, or found to be done."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from functools import partial

from uvmd.errors import Failed, UvmdError
from uvmd.host.containers import Container, State
from uvmd.host.context import Context
from uvmd.host.doing import Doing, doing
from uvmd.host.operations import bundle, context_dir, delete, pod_sources, runtime_undo, sandbox, written
from uvmd.linux import paths

log = logging.getLogger(__name__)


def was_created(ctx: Context, container_id: str) -> bool:
    """Tell whether the create that is asked for again was done; undo it if it was only begun.

    Raises:
        Failed: it cannot be undone whole, so it must not be done again.
    """
    container = ctx.registry.find(container_id)
    if container is None or container.created_by != doing().number:
        return False
    if container.state is not State.CREATING:
        return True
    if not unwind(ctx, container):
        raise Failed(f"create {container_id}: what an interrupted create left could not be removed")
    return False


def unwind(ctx: Context, container: Container) -> bool:
    """Undo a create that was interrupted, however far it came; tell whether nothing of it is left."""
    log.warning("a create was interrupted, undoing it", extra={"container": container.id})
    os.makedirs(ctx.work_dir(container.id), mode=0o700, exist_ok=True)
    whole = True
    try:
        runtime_undo.destroy(ctx, container)
        pod_sources.release(ctx, container)
        if not _shares_namespace(ctx, container):
            ctx.network.detach(container.role.namespace)
        context_dir.remove(container)
        sandbox.undo_interrupted(ctx, container)
        _remove_bundle(container)
    except (UvmdError, OSError) as error:
        whole = False
        ctx.gate.mark(f"undo of an interrupted create of {container.id}: {error}")
    delete.forget(ctx, container)
    return whole


def _shares_namespace(ctx: Context, container: Container) -> bool:
    """Whether the adapters in its namespace are another container's."""
    return any(
        other.role.namespace == container.role.namespace
        for other in ctx.registry.containers()
        if other is not container and other.state is not State.CREATING
    )


def _remove_bundle(container: Container) -> None:
    """Remove what the create wrote: its config.json, and the bundle and those above if it made them."""
    written.take_back(container.bundle, bundle.CONFIG, bundle.CONFIG in container.existed)
    if container.made_bundle:
        paths.remove_empty([container.bundle])
        delete.remove_made_parents(container)


def undo_create(ctx: Context, container: Container) -> None:
    """Undo a create that nobody asks for again, once nothing of it is under way."""
    try:
        if container.created_by:  # else an earlier release began it
            ctx.slots.await_request(container.created_by)
    except OSError as error:
        log.error("what a create had begun does not end, ignoring", extra={"errno": error.errno})
    unwind(ctx, container)


def finish_delete(ctx: Context, container: Container) -> None:
    """Go on with a removal that an earlier daemon began."""
    log.warning("a delete was interrupted, finishing it", extra={"container": container.id})
    for error in delete.take_down(ctx, container):
        log.error("interrupted delete left something behind", extra={"error": str(error)})


def settle(ctx: Context, what: Doing, *, failed: bool) -> list[Callable[[], None]]:
    """Take away what earlier daemons made for a request, and this one did not take up.

    Returns what is still to be done of it, as ``recovery.recover`` does: the request was
    answered before it came to that.
    """
    there = ctx.registry.containers()
    begun = [one for one in there if one.state is State.CREATING and one.created_by == what.number]
    going = [one for one in there if one.deleting and one.deleted_by == what.number]
    theirs = {one.init.slot for one in begun if one.init is not None}
    for slot in ctx.slots.earlier_slots(what.number):
        if slot not in theirs and ctx.registry.by_slot(slot) is None:
            drop_slot(ctx, slot)
    if failed and ctx.gate.strict and (what.recalled or begun):
        # The policy has said yes and counts on what it allowed; that was not done.
        ctx.gate.mark("a request was interrupted after the policy had allowed it, and then failed")
    return [
        *(partial(undo_create, ctx, one) for one in begun),
        *(partial(finish_delete, ctx, one) for one in going),
    ]


def drop_slot(ctx: Context, slot: int) -> None:
    """End the process of a slot that nobody knows, and forget it."""
    log.warning("slot without a record, ending its process", extra={"slot": slot})
    try:
        ctx.slots.kill(slot, signal.SIGKILL)
    except OSError:
        pass
    ctx.slots.release(slot)
