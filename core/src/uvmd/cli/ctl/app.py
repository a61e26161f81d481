"""The command group: names of verbs, help, and how errors and statuses leave the program."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

import click

from uvmd import __version__
from uvmd.cli.ctl.settings import Settings, common
from uvmd.errors import UvmdError

#: Sections of the help: verb -> (module below uvmd.cli.ctl, one line).
SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Containers": {
        "run": ("run", "Run a command in a new container."),
        "exec": ("execute", "Run a command in a running container, or in the VM."),
        "create": ("create", "Create a container from a spec file."),
        "start": ("create", "Start a created container."),
        "stop": ("lifecycle", "Ask a container to end, then make it."),
        "kill": ("lifecycle", "Send a signal to a container's init process."),
        "signal": ("lifecycle", "Send a signal to any process by its pid."),
        "wait": ("lifecycle", "Wait for a process and exit with its status."),
        "rm": ("lifecycle", "Delete containers."),
    },
    "Looking": {
        "ps": ("ps", "List containers."),
        "mounts": ("storage_mounts", "List what requests have mounted."),
        "stats": ("stats", "Show what containers use."),
        "events": ("events", "Print notifications as they come."),
        "stacks": ("stacks", "Show what the daemon's threads are doing."),
        "ping": ("ping", "Measure round trips to the daemon."),
    },
    "Images": {
        "image": ("image", "Make, look at and check layer images; needs no daemon."),
    },
    "Devices": {
        "attach": ("storage", "Mount a disk, persistent memory or a shared directory."),
        "layers": ("storage", "Put a container's root together from layers."),
        "detach": ("storage_detach", "Unmount what attach or layers has mounted."),
    },
    "The VM and the wire": {
        "modify": ("modify", "Add, remove or update devices and settings."),
        "raw": ("raw", "Send any message and print the answer."),
        "host": ("host", "Hold the connection and share it with other commands."),
    },
}
VERBS = {name: found for section in SECTIONS.values() for name, found in section.items()}


class Verbs(click.Group):
    """Imports a verb when it is used; plugins are asked only for names that are not ours."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return our verbs and the plugins'."""
        return [*VERBS, *sorted(_plugin_verbs())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a verb by name."""
        if cmd_name in VERBS:
            module = importlib.import_module(f"uvmd.cli.ctl.{VERBS[cmd_name][0]}")
            return _as_command(getattr(module, f"{cmd_name}_verb"))
        return _plugin_verbs().get(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs without importing them."""
        for title, verbs in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, line) for name, (_, line) in verbs.items()])
        added = _plugin_verbs()
        if added:
            with formatter.section("Added by plugins"):
                formatter.write_dl([(name, added[name].get_short_help_str(70)) for name in sorted(added)])

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """Run a verb; an error becomes one line on stderr and status 1, a wrong usage status 2."""
        settings = extra.pop("obj", None) or Settings()
        extra["standalone_mode"] = False
        try:
            status = super().main(args, prog_name, obj=settings, **extra)
            sys.stdout.flush()
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except UvmdError as error:
            _show_error(error, settings)
            sys.exit(1)
        except (KeyboardInterrupt, click.Abort):
            sys.exit(128 + signal.SIGINT)
        except BrokenPipeError:
            # The reader of our output left; Python would complain again when it flushes.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(128 + signal.SIGPIPE)
        sys.exit(status if isinstance(status, int) else 0)


def _as_command(value: object) -> click.Command:
    if not isinstance(value, click.Command):
        raise TypeError(f"a verb is a {type(value).__name__}, not a command")
    return value


@cache
def _plugin_verbs() -> dict[str, click.Command]:
    from uvmd.cli.ctl.plugins import plugin_verbs

    return plugin_verbs(taken=VERBS)


def _show_error(error: UvmdError, settings: Settings) -> None:
    if settings.json:
        from uvmd.client.errors import RemoteError

        described: dict[str, Any] = {"error": type(error).__name__, "message": str(error)}
        if isinstance(error, RemoteError):
            described.update(
                message=error.message, hresult=f"0x{error.code:08X}", name=error.name, request=error.request
            )
        click.echo(json.dumps(described, ensure_ascii=False), err=True)
    else:
        click.echo(f"uvmctl: {error}", err=True)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@common("-v", hidden=False)
@click.version_option(__version__, prog_name="uvmctl")
def uvmctl() -> None:
    """Drive a uvmd from the host's side: run containers in the VM, look, measure.

    uvmd dials, uvmctl listens. A command takes the daemon's next connection, works and
    leaves; `uvmctl host` holds the connection so that several commands can work at once.

    \b
      uvmd serve --transport unix:/run/uvmd/host.sock &     (in the VM, or right here)
      uvmctl run --rm -it /srv/rootfs sh                    a shell in a new container
      uvmctl run -d --name web /srv/rootfs httpd -f         and one in the background
      uvmctl exec -it web sh                                a second process in it
      uvmctl ps                                             what is there
      uvmctl rm -f web                                      and gone

    `uvmctl VERB --help` shows examples for each verb.
    """
