"""Verbs that plugins add: looked for only when a name is not ours, and for the help.

Every installed plugin counts, whatever a daemon's configuration here allows: the daemon
that a verb talks to is usually another machine's.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from copy import copy
from typing import Any

import click

from uvmd.cli.ctl.settings import Settings, note
from uvmd.errors import ConfigError


def plugin_verbs(taken: Container[str]) -> dict[str, click.Command]:
    """Return the plugins' verbs, less those whose names are *taken*.

    A verb whose name has a space hangs below the group before it, ``policy report`` below
    ``policy``: so two distributions can share a group, and each works without the other.

    What cannot be loaded is said on stderr and left out: a broken plugin must not take
    the help away.
    """
    from uvmd.plugin_manager import load_plugins

    try:
        references = load_plugins().commands()
    except ConfigError as error:
        note(f"plugins: {error}, ignoring")
        return {}
    free = {name: reference for name, reference in references.items() if name.partition(" ")[0] not in taken}
    return _grouped(_resolved(free))


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
        verbs[name] = command
    return verbs


def _grouped(commands: Mapping[str, click.Command]) -> dict[str, click.Command]:
    """Hang the commands whose names have a space below their groups."""
    verbs = {name: with_client(command) for name, command in commands.items() if " " not in name}
    for name, command in commands.items():
        parent, space, verb = name.partition(" ")
        if not space:
            continue
        group = verbs.setdefault(parent, _new_group(parent))
        try:
            _hang(group, verb, command)
        except ConfigError as error:
            note(f"verb {name}: {error}, ignoring")
    return verbs


def _new_group(name: str) -> click.Group:
    group = click.Group(name, short_help=f"More about {name}.")
    group.needs_client = False  # type: ignore[attr-defined]
    return group


def _hang(group: click.Command, verb: str, command: click.Command) -> None:
    """Add a command to a group.

    Raises:
        ConfigError: it is no group, or has that verb.
    """
    if not isinstance(group, click.Group):
        raise ConfigError(f"{group.name} is no group")
    if not verb or " " in verb or verb in group.list_commands(click.Context(group)):
        raise ConfigError(f"{group.name} takes no verb {verb!r:.64}")
    # A group that needs a client has one by then, and its verbs inherit it.
    connected = getattr(group, "needs_client", True) is not False
    group.add_command(command if connected else with_client(command), verb)


def with_client(command: click.Command) -> click.Command:
    """Let a plugin's verb run with a connected client as its context's object.

    The connection is made when the verb is invoked, so its ``--help`` needs no daemon.
    A command whose attribute ``needs_client`` is False works without one. What the plugin
    made stays as it is: its own code may use it too.
    """
    command = copy(command)
    if isinstance(command, click.Group):
        command.commands = dict(command.commands)
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
