"""Run another process in a running container (spec containers.md 11.3)."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from uvmd.api.transaction import Undo, transaction
from uvmd.errors import Failed, Refused
from uvmd.host.containers import Container
from uvmd.host.context import Context
from uvmd.host.doing import doing
from uvmd.host.operations import asking
from uvmd.host.processes import Kind, Process
from uvmd.host.requests import ExecuteRequest
from uvmd.linux import proc
from uvmd.linux.accounts import Accounts, read_accounts
from uvmd.linux.files import unlink_if_there, write_all
from uvmd.oci.shape import narrow, users
from uvmd.oci.spec import read_process


def execute(ctx: Context, container_id: str, request: ExecuteRequest) -> int:
    """Ask, connect the streams, start the process. Returns its pid.

    Raises:
        ContainerNotFound, InvalidState, ContainerStopped: nothing can be put into it.
        InvalidMessage, PolicyDenied, Refused: before anything was done.
        Failed, or what the runtime's failure means: undone.
    """
    container = ctx.registry.get(container_id)
    document = read_process(request.oci_process, strict=ctx.gate.strict)
    with ctx.changing(who=f"exec in {container_id}"), ctx.registry.entering(container):
        document, stdio = _plan(ctx, container, document)
        process = Process(
            ctx.slots.new_slot(),
            Kind.EXEC,
            container_id,
            args=tuple(document.get("args", ())),
            terminal=bool(document.get("terminal")),
        )
        with transaction(ctx.gate.mark) as undo:
            try:
                _start(ctx, container, process, document, request, stdio, undo)
            except OSError as error:
                raise Failed(f"exec in {container_id}: {error.strerror or error}") from error
    return process.pid


def _plan(ctx: Context, container: Container, process: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Ask, and give the process what it inherits; tell whether it may have streams."""
    if ctx.gate.strict:
        # Before the question: the policy is asked about the user that it will run as.
        process = _with_user(container, process)
    accounts = _accounts(ctx, container, process)
    who = asking.who_runs(process, accounts if ctx.gate.wants_user_info else None)
    decision = ctx.gate.ask(
        "exec_in_container",
        asking.exec_input(container.id, process, who),
        "exec in container denied due to policy: ",
    )
    stdio = decision.stdio and container.stdio_allowed
    if process.get("terminal") and not stdio:
        raise Refused(
            "exec in container of process that requires terminal access denied"
            " due to policy not allowing stdio access"
        )
    return _inherit(container, narrow.apply_decision(process, decision), accounts), stdio


def _accounts(ctx: Context, container: Container, process: dict[str, Any]) -> Accounts | None:
    if not ctx.gate.wants_user_info and not process["user"].get("username"):
        return None
    try:
        return read_accounts(container.root)
    except OSError as error:
        raise Failed(f"accounts of {container.root}: {error.strerror}") from error


def _with_user(container: Container, process: dict[str, Any]) -> dict[str, Any]:
    """Give a process that names no user the container's, if that has a user string."""
    if process["user"].get("username") or not container.user.get("username"):
        return process
    return {**process, "user": container.user}


def _inherit(container: Container, process: dict[str, Any], accounts: Accounts | None) -> dict[str, Any]:
    """Give the process the container's limits, and its user where it names none itself."""
    process = {key: value for key, value in process.items() if key != "rlimits"}
    if container.rlimits is not None:
        process["rlimits"] = container.rlimits
    if process["user"].get("username"):
        process = users.apply_user_string(process, accounts or Accounts(None, None))
    else:
        process = _with_user(container, process)
    user = {key: value for key, value in process["user"].items() if key != "username"}
    return {**process, "user": user}


def _start(
    ctx: Context,
    container: Container,
    process: Process,
    document: dict[str, Any],
    request: ExecuteRequest,
    stdio: bool,
    undo: Undo,
) -> None:
    slot = process.slot
    file = f"{ctx.work_dir(container.id)}/{slot}.process.json"
    try:
        _write_document(file, document)
        ctx.registry.expect(process)
        undo.callback(ctx.registry.forget, process, step="forget the process")
        console = ""
        undo.callback(ctx.slots.release, slot, step="release the slot")
        # Without any stream the monitor gives /dev/null and needs no slot before.
        if process.terminal or any(port is not None for port in request.ports):
            console = ctx.console_socket(slot) if process.terminal else ""
            ctx.slots.open_slot(slot, terminal=process.terminal, console_socket=console, label=container.id)
            ctx.slots.connect(slot, request.ports, discard=not stdio)
        undo.callback(_kill, ctx, slot, step="kill the process")
        pid = _run(ctx, container, file, slot, console)
    finally:
        unlink_if_there(file)
    process.start_time = proc.start_time(pid)
    ctx.registry.started(process, pid)
    ctx.journal.save(container)


def _run(ctx: Context, container: Container, file: str, slot: int, console: str) -> int:
    pid_file = ctx.runtime.pid_file(container.id, slot)
    try:
        return ctx.runtime.exec(container.id, file, slot=slot, console_socket=console)
    except BaseException:
        _kill_stray(ctx, container, pid_file)
        raise
    finally:
        unlink_if_there(pid_file)


def _kill_stray(ctx: Context, container: Container, pid_file: str) -> None:
    """Kill what a runtime started before it failed or was killed; it is no slot's process."""
    try:
        with open(pid_file, encoding="ascii") as found:
            pid = int(found.read(32))
        # Only a member of the container: the file is all that the runtime's word is worth now.
        if pid in ctx.cgroups.processes(container.cgroup):
            os.kill(pid, signal.SIGKILL)
    except (OSError, ValueError):
        return


def _write_document(path: str, document: dict[str, Any]) -> None:
    if doing().again:
        unlink_if_there(path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    write_all(fd, json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode())


def _kill(ctx: Context, slot: int) -> None:
    try:
        ctx.slots.kill(slot, signal.SIGKILL)
    except OSError:
        pass  # there is none, or no more
