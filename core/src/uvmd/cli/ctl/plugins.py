"""Verbs that plugins add: looked for only when a name is not ours, and for the help.

Every installed plugin counts, whatever a daemon's configuration here allows: the daemon
that a verb talks to is usually another machine's.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

import click

from uvmd.cli.ctl.settings import Settings, note
from uvmd.errors import ConfigError


def plugin_verbs(taken: Container[str]) -> dict[str, click.Command]:
    """Return the plugins' verbs, less those whose names are *taken*.

    What cannot be loaded is said on stderr and left out: a broken plugin must not take
    the help away.
    """
    from uvmd.plugin_manager import load_plugins

    try:
        references = load_plugins().commands()
    except ConfigError as error:
        note(f"plugins: {error}, ignoring")
        return {}
    return _resolved({name: reference for name, reference in references.items() if name not in taken})


def _resolved(references: Mapping[str, str]) -> dict[str, click.Command]:
    from uvmd.plugin_manager.references import resolve

    verbs = {}
    for name, reference in references.items():
        try:
            command = resolve(reference, f"verb {name}")
            if not isinstance(command, click.Command):
                raise ConfigError(f"verb {name}: {reference} is no click command")
        except ConfigError as error:
            note(f"{error}, ignoring")
            continue
        verbs[name] = with_client(command)
    return verbs


def with_client(command: click.Command) -> click.Command:
    """Let a plugin's verb run with a connected client as its context's object.

    The connection is made when the verb is invoked, so its ``--help`` needs no daemon.
    A command whose attribute ``needs_client`` is False works without one.
    """
    if getattr(command, "needs_client", True) is False:
        return command
    invoke = command.invoke

    def invoke_connected(ctx: click.Context) -> Any:
        settings = ctx.find_object(Settings) or Settings()
        with settings.connect() as client:
            ctx.obj = client
            return invoke(ctx)

    command.invoke = invoke_connected  # type: ignore[method-assign]
    return command
