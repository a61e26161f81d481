"""Run a process in the VM itself, outside of any container (spec containers.md 11.4)."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Final

from uvmd.api.transaction import transaction
from uvmd.errors import Failed, Refused
from uvmd.host.command_line import split_command_line
from uvmd.host.context import Context
from uvmd.host.processes import Kind, Process
from uvmd.host.requests import NULL_ID, ExecuteRequest
from uvmd.linux import proc
from uvmd.oci import fields

_FIELD: Final = "ProcessParameters"


def execute(ctx: Context, request: ExecuteRequest) -> int:
    """Ask about the arguments that will run, then run them. Returns the pid.

    Raises:
        InvalidMessage: a text with a NUL in it, naming the field.
        Refused: there is no program, or the command line cannot be split.
        PolicyDenied: the policy said no.
        Failed: the streams could not be connected or the program not be started.
    """
    _check_texts(request)
    # Split first: a policy that sees no arguments would judge another command (16.39).
    args = list(request.args) or split_command_line(request.command_line)
    if not args or not args[0]:
        raise Refused("process in the VM: neither CommandArgs nor CommandLine names a program")
    with ctx.changing(who="exec in the VM"):
        decision = ctx.gate.ask(
            "exec_external",
            {
                "argList": args,
                "envList": [f"{name}={value}" for name, value in request.env.items()],
                "workingDir": request.cwd,
            },
            "exec is denied due to policy: ",
        )
        if request.terminal and not decision.stdio:
            raise Refused(
                "exec of process that requires terminal access denied due to policy not allowing stdio access"
            )
        env = dict(request.env) if decision.env is None else _pairs(decision.env)
        return _spawn(ctx, request, args, env, decision.stdio)


def _check_texts(request: ExecuteRequest) -> None:
    fields.check_texts(list(request.args), fields.texts, what=f"{_FIELD}.CommandArgs")
    fields.check_texts(request.command_line, fields.text, what=f"{_FIELD}.CommandLine")
    fields.check_texts(dict(request.env), fields.text_map, what=f"{_FIELD}.Environment")
    fields.check_texts(request.cwd, fields.text, what=f"{_FIELD}.WorkingDirectory")


def _pairs(kept: Sequence[str]) -> dict[str, str]:
    """Turn ``K=V`` texts back into pairs; a text without ``=`` names no variable (16.2)."""
    pairs = {}
    for text in kept:
        name, equals, value = text.partition("=")
        if name and equals:
            pairs[name] = value
    return pairs


def _spawn(ctx: Context, request: ExecuteRequest, args: list[str], env: dict[str, str], stdio: bool) -> int:
    process = Process(
        ctx.slots.new_slot(), Kind.EXTERNAL, NULL_ID, args=tuple(args), terminal=request.terminal
    )
    slot = process.slot
    with transaction(ctx.gate.mark) as undo:
        ctx.registry.expect(process)
        undo.callback(ctx.registry.forget, process, step="forget the process")
        try:
            pid = ctx.slots.spawn(
                slot,
                args,
                env=env,
                cwd=request.cwd or "/",
                terminal=request.terminal,
                ports=request.ports,
                discard=not stdio,
                label="process in the VM",
            )
            undo.callback(_end, ctx, slot, step="end the process")
            process.start_time = proc.start_time(pid)
            ctx.registry.started(process, pid)
            ctx.journal.save_external(process)
        except OSError as error:
            raise Failed(f"process in the VM: {args[0]!r:.200}: {error.strerror or error}") from error
    return process.pid


def _end(ctx: Context, slot: int) -> None:
    try:
        ctx.slots.kill(slot, signal.SIGKILL)
    except OSError:
        pass
    ctx.slots.release(slot)
