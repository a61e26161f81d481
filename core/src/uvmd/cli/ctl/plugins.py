"""Verbs that plugins add: found only when a name is not ours, or for the help."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import click

from uvmd.cli.ctl.settings import Settings


def plugin_verbs(taken: Container[str]) -> dict[str, click.Command]:
    """Return the plugins' verbs that do not hide one of ours."""
    return {}


def with_client(command: click.Command) -> click.Command:
    """Let a plugin's verb run with a connected client as its context's object."""
    invoke = command.invoke

    def invoke_connected(ctx: click.Context) -> Any:
        settings = ctx.find_object(Settings) or Settings()
        with settings.connect() as client:
            ctx.obj = client
            return invoke(ctx)

    command.invoke = invoke_connected  # type: ignore[method-assign]
    return command
