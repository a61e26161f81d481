"""Delete what is left of a container (spec containers.md 11.9); with a sandbox goes its pod."""

from __future__ import annotations

import errno
import logging
import posixpath
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from uvmd.api.resources import Kind
from uvmd.errors import Failed, InvalidState, Refused, UvmdError
from uvmd.host.containers import Container, State
from uvmd.host.context import Context
from uvmd.host.doing import doing
from uvmd.host.operations import context_dir, pod_sources, runtime_undo, sandbox
from uvmd.host.operations.places import root_above
from uvmd.host.requests import check_strict_id
from uvmd.linux import proc
from uvmd.linux.paths import is_below, remove_empty
from uvmd.linux.trees import remove_tree_beneath
from uvmd.observe.steps import step
from uvmd.oci.role import Kind as ContainerKind

log = logging.getLogger(__name__)

# Init dies of SIGKILL at once; its streams may take the monitor's grace to drain.
_KILL_S = 10.0
_START_S = 90.0

#: Noted beside the request: the checks are done, from here on it is removed.
_BEGUN: Final = "deleting"

#: Directories that all bundles of a host share; they stay.
_SHARED = ("c", "pods")
#: Where hosts of the second generation put bundles: POD/CONTAINER.
_PODS: Final = "/run/gcs/pods"


def delete(ctx: Context, container_id: str) -> None:
    """Refuse a running container; else remove it, its scratch directory and its bundle.

    Once removal has begun the id is free at the end, whatever fails on the way.

    Raises:
        ContainerNotFound, InvalidState: unknown, being created, running.
        InUse: a sandbox whose pod has workloads.
        Refused: strict: a malformed id, the container runs, or its overlay is still mounted.
        Inconsistent: strict, and the guest is no longer what was recorded.
        Failed, or what the runtime's failure means: what could not be removed; the rest is.
    """
    check_strict_id(container_id, strict=ctx.gate.strict)
    if doing().again and _BEGUN in doing().notes:
        _finish(ctx, container_id)
        return
    with ctx.changing(*_lock_keys(ctx, container_id), who=f"delete {container_id:.140}"):
        ctx.gate.require_consistent()
        container = ctx.registry.get(container_id)
        try:
            with _closing(ctx, container), ctx.registry.deleting(container, _START_S):
                if ctx.gate.strict:
                    ctx.mounts.require_no_overlay(container.root)
                ctx.slots.note(_BEGUN)
                container.deleted_by = doing().number
                errors = take_down(ctx, container)
        except InvalidState as error:
            if ctx.gate.strict:  # the reference's code in this mode
                raise Refused(str(error)) from error
            raise
    if errors:
        raise errors[0]


def _finish(ctx: Context, container_id: str) -> None:
    """Go on with a removal that an earlier daemon began for this very request.

    Raises:
        UvmdError: what could not be removed; or nothing was yet, and now it is in use.
    """
    container = ctx.registry.find(container_id)
    with ctx.changing(*_lock_keys(ctx, container_id), who=f"delete {container_id:.140}"):
        # The monitor's numbers grow: what was created by a later request is another container.
        # The journal cannot say it: the note is older than the entry, which a full disk may keep out.
        if container is None or container.created_by > doing().number:
            return
        if ctx.registry.find(container_id) is not container:
            return
        with ExitStack() as held:
            if not container.deleting:
                held.enter_context(_closing(ctx, container))
                held.enter_context(ctx.registry.deleting(container, _START_S))
            container.deleted_by = doing().number
            errors = take_down(ctx, container)
    if errors:
        raise errors[0]


def _lock_keys(ctx: Context, container_id: str) -> list[str]:
    """Name what a delete changes; for what no create locks, a name that nobody else has does no harm."""
    container = ctx.registry.find(container_id)
    keys = [f"container:{container_id}"]
    if container is not None and container.role.kind is not ContainerKind.WORKLOAD:
        keys.append(f"pod:{container.role.pod_id if container.is_sandbox else container_id}")
        if container.role.namespace:
            keys.append(f"netns:{container.role.namespace}")
    return keys


@contextmanager
def _closing(ctx: Context, container: Container) -> Iterator[None]:
    """Keep workloads out of the pod of a sandbox that goes."""
    if not container.is_sandbox:
        yield
        return
    pod_id = container.role.pod_id
    ctx.pods.begin_close(pod_id)
    try:
        yield
    except BaseException:
        ctx.pods.stay_open(pod_id)
        raise


def take_down(ctx: Context, container: Container) -> list[UvmdError]:
    """Remove everything that can be removed, and the record; return what failed."""
    _journal(ctx, container)
    errors: list[UvmdError] = []
    _end_init(ctx, container)
    try:
        delete_in_runtime(ctx, container)
    except UvmdError as error:
        errors.append(error)
    steps: list[tuple[str, Callable[[], None]]] = [
        ("network", lambda: ctx.network.detach(container.role.namespace)),
        ("mounts of the pod", lambda: sandbox.take_down_mounts(container)),
        ("security context", lambda: context_dir.remove(container)),
        # The bundle may be bound onto the scratch, which may lie in the bundle.
        ("mounts", lambda: ctx.mounts.undo(container.id, strict=ctx.gate.strict)),
        ("scratch", lambda: _remove(ctx, container.scratch)),
        ("bundle", lambda: _remove_bundle(ctx, container.bundle)),
        ("pod", lambda: sandbox.remove_root(ctx, container)),
        ("parent of the bundle", lambda: _remove_parent(container)),
        ("pod", lambda: sandbox.remove_cgroup(ctx, container)),
    ]
    for what, remove in steps:
        try:
            with step("remove", what):
                remove()
        except UvmdError as error:
            errors.append(error)
        except OSError as error:
            errors.append(Failed(f"{what} of {container.id}: {error.filename}: {error.strerror}"))
    forget(ctx, container)
    return errors


def _remove_parent(container: Container) -> None:
    """A pod's directory of the newer layout is nobody's once its last bundle is gone.

    Nor is what was made for a bundle at a place that no host has otherwise.
    """
    parent = posixpath.dirname(container.bundle)
    if container.is_sandbox and is_below(parent, _PODS):
        remove_empty([parent])
    remove_made_parents(container)


def remove_made_parents(container: Container) -> None:
    """Remove what was made above the bundle, as far as it is empty by now."""
    remove_empty([made for made in container.made_parents if posixpath.basename(made) not in _SHARED])


def _journal(ctx: Context, container: Container) -> None:
    """Record that removal has begun: a daemon that finds this goes on with it."""
    try:
        ctx.journal.save(container, doing="deleting")
    except OSError as error:
        log.error(
            "journal could not be written, ignoring", extra={"container": container.id, "errno": error.errno}
        )


def _end_init(ctx: Context, container: Container) -> None:
    """Kill an init that was never started, and let the streams of a dead one drain."""
    init = container.init
    if init is None or container.state is State.TERMINATED:
        return
    try:
        ctx.slots.stop_redial(init.slot)
        ctx.slots.kill(init.slot, signal.SIGKILL)
    except OSError:
        pass  # gone, and draining
    with step("wait", "for init"):
        ended = ctx.registry.wait_terminated(container, ctx.settings.drain_grace_s + _KILL_S)
    if not ended:
        log.warning("container did not end in time, ignoring", extra={"container": container.id})
        # Those who wait for it, and for news of it, must not wait for ever.
        ctx.timers.post(lambda: ctx.exits.give_up(init))
        ctx.registry.wait_terminated(container, _KILL_S)


def delete_in_runtime(ctx: Context, container: Container) -> None:
    """Delete the container in the runtime; by force if it will not go otherwise.

    Raises:
        UvmdError: neither worked.
    """
    try:
        ctx.runtime.delete(container.id)
    except UvmdError as error:
        log.warning("runtime did not delete the container, forcing it", extra={"container": container.id})
        try:
            ctx.runtime.delete(container.id, force=True)
        except UvmdError:
            _remove_cgroup(ctx, container)
            raise error from None


def _remove_cgroup(ctx: Context, container: Container) -> None:
    """Nobody will ask the runtime again, so what needs no runtime goes without it."""
    try:
        runtime_undo.remove_cgroup(ctx, container.cgroup)
    except OSError as error:
        log.warning(
            "cgroup of a container could not be removed, ignoring",
            extra={"container": container.id, "errno": error.errno},
        )


def _remove(ctx: Context, path: str) -> None:
    """Remove a directory, but never through a mount: what is mounted there is not the container's.

    Nor through a symlink: the parents may be on a disk that the host writes to.

    Raises OSError, EBUSY if something is mounted at or below it, ELOOP for a symlink.
    """
    if not path:
        return
    mounted = proc.mounts_at_or_below(path)
    if mounted:
        raise OSError(errno.EBUSY, "still mounted", mounted[0])
    remove_tree_beneath(path, root_above(path, ctx.settings.bundle_roots, "what is to be removed"))


def _remove_bundle(ctx: Context, path: str) -> None:
    """Remove the bundle. One that is a disk of the host's goes with it: other pods' scratch may be there.

    Hosts of the first generation mount a sandbox's scratch disk as its bundle.
    """
    found = ctx.mounts.table.at(path)
    if found is not None and found.kind is Kind.READ_WRITE:
        return
    _remove(ctx, path)


def forget(ctx: Context, container: Container) -> None:
    """Let go of the container's records and of its slots."""
    if container.is_sandbox:
        ctx.pods.close(container.role.pod_id)
    elif (lost := ctx.pods.leave(container.role.pod_id, container.id)) is not None:
        sandbox.take_down_lost(ctx, lost)
    ctx.registry.remove(container)
    slots = [] if container.init is None else [container.init.slot]
    # Execs whose end nobody has heard of yet are let go when they have ended.
    for process in list(container.execs.values()):
        if process.exit_code is not None:
            ctx.registry.forget(process)
            slots.append(process.slot)
    for slot in slots:
        try:
            ctx.slots.release(slot)
        except OSError as error:
            log.warning("slot could not be released, ignoring", extra={"slot": slot, "errno": error.errno})
    try:
        pod_sources.remove_work_dir(ctx.work_dir(container.id))
        ctx.journal.remove(container.id)
    except OSError as error:
        log.error(
            "run directory could not be cleaned, ignoring",
            extra={"container": container.id, "errno": error.errno},
        )
