"""``uvmctl policy``: tools for policies. They work on files and need no daemon."""

from __future__ import annotations

import importlib
from typing import IO

import click

#: Verbs in modules of their own, imported when they are asked for: verb, module, command.
_ELSEWHERE = {
    "check": ("cli_tools", "check_verb"),
    "diff": ("cli_tools", "diff_verb"),
    "explain": ("cli_tools", "explain_verb"),
    "generate": ("cli_tools", "generate_verb"),
    "did": ("cli_did", "did"),
    "fragment": ("cli_fragment", "fragment"),
    "record": ("cli_why", "record_verb"),
    "why": ("cli_why", "why_verb"),
}


class _Policy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_ELSEWHERE})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _ELSEWHERE:
            return super().get_command(ctx, name)
        module, command = _ELSEWHERE[name]
        found: click.Command = getattr(importlib.import_module(f"uvmd_policy_rego.{module}"), command)
        return found


@click.group(cls=_Policy)
def policy() -> None:
    """Look at security policies and try them."""


policy.needs_client = False  # type: ignore[attr-defined]


@policy.command("replay")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option("--jobs", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes at work.")
def replay_verb(file: IO[str], jobs: int) -> None:
    """Run recorded sessions through the enforcer, one JSON line each.

    \b
      uvmctl policy replay sessions.jsonl
      uvmctl policy replay --jobs 2 - < sessions.jsonl
    """
    from uvmd_policy_rego import parallel, replay

    for line in replay.replay_lines(file) if jobs == 1 else parallel.replay_lines(file, jobs):
        click.echo(line)
