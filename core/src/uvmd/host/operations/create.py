"""Create a standalone container: check, shape, ask, and only then act (spec containers.md 6).

Nothing is written before the policy's yes. What a failed create undoes is exactly what it did;
the id is then free again.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from uvmd.api.policy import Decision
from uvmd.api.transaction import Undo, transaction
from uvmd.errors import Failed, Refused
from uvmd.host.containers import Container, State
from uvmd.host.context import Context
from uvmd.host.operations import asking, bundle, places, runtime_undo
from uvmd.host.processes import Kind, Process
from uvmd.host.requests import check_new_id
from uvmd.linux import proc
from uvmd.linux.accounts import Accounts, read_accounts
from uvmd.linux.devices import find_devices
from uvmd.linux.files import unlink_if_there
from uvmd.oci import annotations as asked
from uvmd.oci.shape import cgroup, devices, narrow, rlimits, shm, tee, users
from uvmd.oci.spec import Spec, check_hostname, owns_pid_namespace, read_spec

log = logging.getLogger(__name__)


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
        InvalidContainerId, ContainerExists, Refused, PolicyDenied: before anything was done.
        Failed, or what the runtime's failure means: undone.
    """
    strict = ctx.gate.strict
    document = read_spec(spec, strict=strict)
    ctx.registry.require_free(container_id)
    with ctx.changing(f"container:{container_id}", who=f"create {container_id:.140}"):
        if ctx.gate.strict is not strict:  # a policy has come meanwhile
            document = read_spec(spec, strict=True)
        ctx.gate.require_consistent()
        check_new_id(container_id, strict=ctx.gate.strict)
        _refuse_pods(document)
        container = Container(
            container_id, activity_id, bundle=bundle_path, scratch=scratch, created_at=time.time()
        )
        with transaction(ctx.gate.mark) as undo:
            ctx.registry.add(container)
            undo.callback(ctx.registry.remove, container, step="forget the container")
            shaped = _plan(ctx, container, document)
            _apply(ctx, container, shaped, undo)
            ctx.registry.advance(container, State.CREATED)
    init = container.init
    if init is not None and init.over:  # its news came while nobody could be told
        ctx.timers.post(lambda: ctx.exits.settle(init))


def _refuse_pods(spec: Spec) -> None:
    found = asked.annotations_of(spec)
    kind = found.get(asked.CONTAINER_TYPE, "")
    if kind in ("sandbox", "container"):
        raise Refused(f"{asked.CONTAINER_TYPE} {kind}: this version runs standalone containers only")
    if kind:
        raise Refused(f"{asked.CONTAINER_TYPE}: unknown type {kind!r:.60}")
    if found.get(asked.VIRTUAL_POD_ID):
        raise Refused(f"{asked.VIRTUAL_POD_ID}: this version runs standalone containers only")
    if asked.read_flag(found, asked.HOST_NETWORK):
        raise Refused(f"{asked.HOST_NETWORK}: this version does not configure networks")


def _plan(ctx: Context, container: Container, document: Spec) -> Spec:
    """Check and shape everything, then ask. Reads only."""
    roots = ctx.settings.bundle_roots
    places.root_above(container.bundle, roots, "OciBundlePath")
    if container.scratch:
        places.root_above(container.scratch, roots, "ScratchDirPath")
    if ctx.gate.strict:
        places.check_strict_places(container.id, container.bundle, container.scratch, document)
    check_hostname(document)
    # As the host sent them: devices that are added below are not the policy's business.
    host_devices = document["linux"].get("devices", [])
    container.root = _root_path(container.bundle, document)
    container.cgroup = f"{ctx.settings.pods_cgroup}/{container.id}"
    container.tee_log = tee.tee_log_path(document)
    accounts = _accounts(ctx, container.root, document["process"])
    spec = tee.apply_log_mount(_shape(document, container.cgroup, accounts), container.logs)
    who = asking.who_runs(spec["process"], accounts if ctx.gate.wants_user_info else None)
    decision = ctx.gate.ask(
        "create_container",
        asking.create_input(container.id, spec, host_devices, who),
        "container creation denied due to policy: ",
    )
    _require_stdio_for_tee(container, decision)
    spec = {**spec, "process": narrow.apply_decision(spec["process"], decision)}
    container.stdio_allowed = decision.stdio
    container.owns_pid_namespace = owns_pid_namespace(spec)
    container.user = spec["process"]["user"]
    container.rlimits = spec["process"].get("rlimits")
    return spec


def _root_path(bundle_path: str, spec: Spec) -> str:
    path: str = spec["root"]["path"]
    return path if path.startswith("/") else f"{bundle_path}/{path}"


def _accounts(ctx: Context, root: str, process: dict[str, Any]) -> Accounts | None:
    """Read the image's accounts if somebody will look at them."""
    if not ctx.gate.wants_user_info and not process["user"].get("username"):
        return None
    try:
        return read_accounts(root)
    except OSError as error:
        raise Failed(f"accounts of {root}: {error.strerror}") from error


def _shape(document: Spec, cgroup_path: str, accounts: Accounts | None) -> Spec:
    spec = shm.apply_shm_size(rlimits.apply_core_rlimit(document))
    if asked.read_flag(asked.annotations_of(spec), asked.PRIVILEGED):
        spec = devices.apply_privileged(spec, find_devices())
    if accounts is not None:
        spec = {**spec, "process": users.apply_user_string(spec["process"], accounts)}
    return cgroup.drop_windows(cgroup.apply_cgroup_path(spec, cgroup_path))


def _require_stdio_for_tee(container: Container, decision: Decision) -> None:
    if container.tee_log and not decision.stdio:
        raise Refused("teeing container stdio denied due to policy not allowing stdio access")


def _apply(ctx: Context, container: Container, spec: Spec, undo: Undo) -> None:
    slot = ctx.slots.new_slot()
    terminal = bool(spec["process"].get("terminal"))
    args = tuple(spec["process"].get("args", ()))
    init = Process(slot, Kind.INIT, container.id, args=args, terminal=terminal)
    container.init = init
    try:
        bundle.prepare(ctx, container, spec, undo)
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
        # Before anybody can see the container: from then on it is not undone any more.
        ctx.journal.save(container, state=State.CREATED)
    except OSError as error:
        raise Failed(f"create {container.id}: {error.filename or 'monitor'}: {error.strerror}") from error
