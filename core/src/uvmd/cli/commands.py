"""``uvmd``'s verbs for people: look at a configuration and its plugins without starting anything."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from uvmd import __version__
from uvmd.daemon.config import options
from uvmd.daemon.options import Loaded, load
from uvmd.errors import ConfigError

if TYPE_CHECKING:
    from uvmd.cli.doctor import Finding

P = ParamSpec("P")
T = TypeVar("T")


def _refusals(verb: Callable[P, T]) -> Callable[P, T]:
    """Turn a ConfigError into one line and status 78 (EX_CONFIG), as the daemon's own start does."""

    @wraps(verb)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return verb(*args, **kwargs)
        except ConfigError as error:
            click.echo(f"uvmd: {error}", err=True)
            sys.exit(os.EX_CONFIG)

    return guarded


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


_config = click.option(
    "--config", "path", metavar="FILE", help="The TOML file to read instead of the default one."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


def _load(path: str | None) -> Loaded:
    return load(["--config", path] if path else [], os.environ)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="uvmd")
def uvmd() -> None:
    """The guest daemon of a utility VM.

    `uvmd COMMAND --help` says more of each. The host's side is the command uvmctl.
    """


@uvmd.command(
    short_help="Run the daemon; all its options.",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True},
)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def serve(flags: Sequence[str]) -> None:
    """Run the daemon; `uvmd serve --help` teaches."""
    from uvmd.cli import start

    start.serve(list(flags))


@uvmd.command(
    short_help="Run the monitor alone, for a daemon to come.",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True},
)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def monitor(flags: Sequence[str]) -> None:
    """Run the process that outlives the daemon, alone; `uvmd monitor --help` teaches."""
    from uvmd.cli import start

    start.monitor(list(flags))


@uvmd.command(short_help="Show what is configured, and by whom.")
@_config
@_json
@_refusals
def config(path: str | None, as_json: bool) -> None:
    """Show the configuration in force and where each value came from."""
    loaded = _load(path)
    rows = []
    for key in options():
        section, dot, name = key.partition(".")
        value: Any = getattr(loaded.config, section)
        rows.append((key, getattr(value, name) if dot else value, loaded.sources.get(key, "default")))
    if as_json:
        click.echo(
            json.dumps({key: {"value": value, "source": source} for key, value, source in rows}, indent=2)
        )
        return
    shown = [(key, json.dumps(value), source) for key, value, source in rows]
    click.echo(_table([("KEY", "VALUE", "FROM"), *shown]))
    for plugin, keys in loaded.config.plugin.items():
        click.echo(f"plugin.{plugin}: {', '.join(keys) or 'empty'}")


@uvmd.command(short_help="List the plugins, and what each adds.")
@_config
@_json
@_refusals
def plugins(path: str | None, as_json: bool) -> None:
    """List the plugins: version, resource types with their enforcement points, loaded or why not."""
    from uvmd import plugin_manager

    rows = plugin_manager.describe(_load(path).config)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo("No plugins are installed. One is a pip package with an entry point in uvmd.plugins.v1.")
        return
    table = [("NAME", "VERSION", "STATE", "ADDS")]
    table += [(row["name"], row["version"], row["state"], "; ".join(row["adds"])) for row in rows]
    click.echo(_table(table))


@uvmd.command(short_help="Try everything that a start would need.")
@_config
@_refusals
def check(path: str | None) -> None:
    """Resolve every lazy reference and validate every setting; run it when an image is built."""
    from uvmd import plugin_manager
    from uvmd.daemon.compose import require_names
    from uvmd.transport import parse_transport

    loaded = _load(path)
    parse_transport(loaded.config.transport)
    require_names(loaded.config, plugin_manager.load(loaded.config))
    for line in plugin_manager.resolve_all(loaded.config):
        click.echo(line)
    click.echo("uvmd check: ok")


@uvmd.command(short_help="Has this VM what its plugins need?")
@_config
@_json
@_refusals
def doctor(path: str | None, as_json: bool) -> None:
    """Look whether this VM has what uvmd and each plugin need; nothing is changed.

    Run it in the VM, as root. Status 1 if something is missing; a note is about
    something that only some hosts ask for.
    """
    from uvmd.cli.doctor import MISSING, examine

    findings = list(examine(_load(path).config))
    missing = sum(one.state == MISSING for one in findings)
    if as_json:
        click.echo(json.dumps([one._asdict() for one in findings], indent=2))
    else:
        click.echo(_table([("CHECK", "STATE", "FOUND", "NEEDED FOR"), *map(_shown, findings)]))
        advice = "install what is missing, or turn the plugin off with [plugins] deny"
        click.echo(f"uvmd doctor: {missing} missing; {advice}" if missing else "uvmd doctor: ok")
    sys.exit(1 if missing else 0)


def _shown(one: Finding) -> tuple[str, str, str, str]:
    return one.what, one.state, one.found, one.needed_for or "-"


@uvmd.command(short_help="Print JSON Schema of messages, resources, settings.")
@_config
@click.argument("name", required=False)
@_refusals
def schema(path: str | None, name: str | None) -> None:
    """Print JSON Schema for every message, resource type and config section, or for NAME."""
    from uvmd.cli.schemas import all_schemas

    schemas = all_schemas(_load(path).config)
    if name is not None and name not in schemas:
        raise ConfigError(f"no schema named {name}; there are: {', '.join(sorted(schemas))}")
    click.echo(json.dumps(schemas if name is None else schemas[name], indent=2))


@uvmd.group("plugin")
def plugin_group() -> None:
    """Begin a plugin of your own, and try it: `plugin new`, `plugin guest`."""


@plugin_group.command("new", short_help="Make a plugin distribution that works.")
@click.argument("name")
@click.option("--type", "type_", metavar="DOMAIN/TYPE", help="The resource type, else example.com/Name.")
@click.option("--into", metavar="FOLDER", default=".", help="Where the new folder is made; here by default.")
@_refusals
def new_plugin(name: str, type_: str | None, into: str) -> None:
    """Make a plugin distribution uvmd-NAME that works: handler, settings, tests, README, CI.

    \b
      uvmd plugin new lamp --type example.com/Lamp
      cd uvmd-lamp && pip install -e .[test] && pytest

    What it makes in place of your device is a directory; begin with device.py.
    """
    from uvmd.cli.plugin_kit import make

    kit = make(name, type_ or "", into)
    for file in kit.files:
        click.echo(f"  {os.path.join(kit.folder, file)}")
    click.echo(f"Next: cd {kit.folder} && pip install -e .[test] && pytest")
    click.echo(f"The device is a directory for now: {os.path.join('src', kit.package, 'device.py')}")


@plugin_group.command("guest", short_help="Boot a VM with a plugin in it, to try by hand.")
@click.argument("distributions", nargs=-1)
@click.option("--image", metavar="FOLDER", required=True, help="vmlinux, initramfs.cpio and root.erofs.")
@_refusals
def plugin_guest(distributions: Sequence[str], image: str) -> None:
    """Boot a VM with uvmd and installed DISTRIBUTIONS in it, say where uvmctl finds it, and take commands.

    \b
      uvmd plugin guest --image /srv/uvm uvmd-lamp

    Needs QEMU, and an image as `make guest-image ARGS="-o FOLDER"` of uvmd's sources builds it.
    """
    from uvmd.cli.plugin_guest import talk

    talk(image, distributions, sys.stdin, lambda text: click.echo(text, nl=False))
