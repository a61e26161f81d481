"""``uvmctl stacks``."""

from __future__ import annotations

import click

from uvmd.cli.ctl.settings import Settings, common, pass_settings


@click.command("stacks")
@common()
@pass_settings
def stacks_verb(settings: Settings) -> None:
    """Show what every thread of the daemon is doing right now.

    For the moment when something hangs: look twice, a second apart.

    \b
      uvmctl stacks
    """
    with settings.connect() as client:
        stacks = client.dump_stacks()
    settings.show({"stacks": stacks}, stacks.rstrip("\n"))
