"""Create a container: check, shape, ask, and only then act (spec containers.md 6).

Nothing is written before the policy's yes. What a failed create undoes is exactly what it did;
the id is then free again. What is checked and asked is in ``planning``.
"""

from __future__ import annotations

import posixpath
import time
from typing import Any

from uvmd.api.transaction import Undo, transaction
from uvmd.errors import Failed, Refused
from uvmd.host.containers import Container, State
from uvmd.host.context import Context
from uvmd.host.doing import doing
from uvmd.host.operations import bundle, hardware, interrupted, planning, pod_sources, runtime_undo
from uvmd.host.operations.planning import Planned
from uvmd.host.pods import Pod
from uvmd.host.processes import Kind, Process
from uvmd.host.requests import check_new_id, check_pod_id
from uvmd.linux import proc
from uvmd.linux.files import unlink_if_there
from uvmd.observe.steps import step
from uvmd.oci.role import Kind as ContainerKind
from uvmd.oci.role import Role, read_role
from uvmd.oci.shape.sources import apply_schemes
from uvmd.oci.spec import Spec, read_spec


def create(
    ctx: Context,
    container_id: str,
    *,
    bundle_path: str,
    scratch: str,
    spec: Any,
    activity_id: str,
) -> None:
    """Create the container and its init, which waits to be started.

    Raises:
        InvalidMessage: the specification, naming the field.
        InvalidContainerId, ContainerExists, Refused, PolicyDenied, NamespaceNotFound: before
            anything was done.
        Failed, or what the runtime's failure means: undone.
    """
    if doing().again and interrupted.was_created(ctx, container_id):
        return
    strict = ctx.gate.strict
    document = read_spec(spec, strict=strict)
    ctx.registry.require_free(container_id)
    role = read_role(container_id, document)
    with step("find"):
        assigned = hardware.find_assigned(ctx, role, document)
    keys = _lock_keys(container_id, role, document)
    with ctx.changing(*keys, who=f"create {container_id:.140}"):
        if ctx.gate.strict is not strict:  # a policy has come meanwhile
            document = read_spec(spec, strict=True)
        ctx.gate.require_consistent()
        check_new_id(container_id, strict=ctx.gate.strict)
        container = Container(
            container_id,
            activity_id,
            role,
            bundle_path,
            scratch,
            created_at=time.time(),
            created_by=doing().number,
        )
        with transaction(ctx.gate.mark) as undo:
            ctx.registry.add(container)
            undo.callback(ctx.registry.remove, container, step="forget the container")
            pod = _enter_pod(ctx, container, undo)
            with step("plan"):
                planned = planning.plan(ctx, container, document, assigned)
            _apply(ctx, container, planned, undo)
            if pod is not None:
                ctx.pods.ready(pod)
            ctx.registry.advance(container, State.CREATED)
    init = container.init
    if init is not None and init.over:  # its news came while nobody could be told
        ctx.timers.post(lambda: ctx.exits.settle(init))


def _lock_keys(container_id: str, role: Role, document: Spec) -> list[str]:
    """Name what the create changes. A pod and a standalone container of one id share a cgroup's path."""
    keys = [f"container:{container_id}"]
    if role.kind is ContainerKind.WORKLOAD:
        _, sources = apply_schemes(document, "")
        return keys + pod_sources.lock_keys(role.pod_id, sources)
    keys.append(f"pod:{role.pod_id if role.in_pod else container_id}")
    if role.namespace:
        keys.append(f"netns:{role.namespace}")
    return keys


def _enter_pod(ctx: Context, container: Container, undo: Undo) -> Pod | None:
    """Make the container a member of its pod, or the pod itself; returns the pod of a sandbox.

    Raises:
        Refused, InvalidState: the pod is not there, there already, or on its way.
    """
    role = container.role
    if role.pod_id != container.id:
        check_pod_id(role.pod_id, virtual=role.virtual, strict=ctx.gate.strict)
    if role.kind is ContainerKind.WORKLOAD:
        pod = ctx.pods.join(role.pod_id, container.id)
        undo.callback(ctx.pods.leave, role.pod_id, container.id, step="leave the pod")
        container.sandbox_root = pod.root
        return None
    container.sandbox_root = container.bundle
    if role.kind is ContainerKind.STANDALONE:
        if ctx.pods.find(container.id) is not None:
            raise Refused(f"container {container.id}: a pod has this id")
        return None
    if role.virtual:
        parent = posixpath.dirname(container.bundle)
        container.sandbox_root = f"{parent}/virtual-pods/{role.pod_id}"
    other = ctx.registry.find(role.pod_id)
    if other is not None and other is not container:
        raise Refused(f"pod {role.pod_id}: a container has this id")
    group = ctx.pod_cgroup(role.pod_id)
    pod = Pod(role.pod_id, container.id, container.sandbox_root, group, role.host_network)
    ctx.pods.open(pod)
    undo.callback(ctx.pods.close, pod.id, step="forget the pod")
    return pod


def _apply(ctx: Context, container: Container, planned: Planned, undo: Undo) -> None:
    process = planned.spec["process"]
    slot = ctx.slots.new_slot()
    terminal = bool(process.get("terminal"))
    init = Process(slot, Kind.INIT, container.id, args=tuple(process.get("args", ())), terminal=terminal)
    container.init = init
    try:
        with step("bundle"):
            bundle.prepare(ctx, container, planned, undo)
        console = ctx.console_socket(slot) if terminal else ""
        ctx.registry.expect(init)
        ctx.slots.open_slot(slot, terminal=terminal, console_socket=console, label=container.id)
        undo.callback(ctx.slots.release, slot, step="release the slot")
        undo.callback(runtime_undo.destroy, ctx, container, step="delete what the runtime made")
        try:
            init.pid = ctx.runtime.create(container.id, container.bundle, slot=slot, console_socket=console)
        finally:
            unlink_if_there(ctx.runtime.pid_file(container.id, slot))
        init.start_time = proc.start_time(init.pid)
        pod_sources.release(ctx, container)
        with step("network"):
            ctx.network.attach(container.role, init.pid, undo)
        # Before anybody can see the container: from then on it is not undone any more.
        ctx.journal.save(container, state=State.CREATED)
    except OSError as error:
        raise Failed(f"create {container.id}: {error.filename or 'monitor'}: {error.strerror}") from error
