"""The first half of `make docs`: everything that mkdocs needs to make the site, in .cache/docs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click
import gather

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
ROOM = REPOSITORY / ".cache" / "docs"


def main() -> None:
    """Gather the pages and write the settings with which mkdocs makes the site of them."""
    pages = gather.sources(REPOSITORY)
    texts = {
        name: gather.rewritten(path.read_text(encoding="utf-8"), name, path, REPOSITORY, pages)
        for name, path in pages.items()
    }
    texts |= references()
    shutil.rmtree(ROOM, ignore_errors=True)
    for name, text in texts.items():
        target = ROOM / "pages" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    titles = {name: gather.title_of(text, name) for name, text in texts.items()}
    settings = {"INHERIT": str(HERE / "mkdocs.yml"), "nav": gather.navigation(texts, titles)}
    # JSON is YAML.
    (ROOM / "mkdocs.yml").write_text(json.dumps(settings, indent=1), encoding="utf-8")
    print(f"{len(texts)} pages: {ROOM.relative_to(REPOSITORY) / 'site' / 'index.html'}")


def references() -> dict[str, str]:
    """Make the pages that the code itself knows best."""
    from uvmd.cli.ctl.app import uvmctl
    from uvmd.cli.schemas import all_schemas
    from uvmd.daemon.options import help_text, load

    schemas = json.loads(json.dumps(all_schemas(load([], {}).config)))
    del schemas["config"]  # a page of its own
    return {
        "reference/configuration.md": gather.configuration(help_text()),
        "reference/uvmctl.md": gather.verbs(dict(helps(uvmctl, "uvmctl"))),
        "reference/messages.md": gather.messages(schemas),
    }


def helps(command: click.Command, name: str) -> list[tuple[str, str]]:
    """Return the help of a command and of all below it."""
    context = click.Context(command, info_name=name, max_content_width=100)
    found = [(name, command.get_help(context))]
    if isinstance(command, click.Group):
        for verb in command.list_commands(context):
            below = command.get_command(context, verb)
            if below is not None and not below.hidden:
                found += helps(below, f"{name} {verb}")
    return found


if __name__ == "__main__":
    main()
