"""``uvmctl mounts``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from uvmd.cli.ctl.settings import Settings, common, note, pass_settings
from uvmd.cli.ctl.tables import table
from uvmd.client.status import mount_table


@click.command("mounts")
@common()
@pass_settings
def mounts_verb(settings: Settings) -> None:
    """List what requests have mounted in the VM.

    USES counts what rests on a mount: an overlay on its layers, a bundle on its disk. One
    that is used cannot be removed in a strict VM. CONTAINER is the one whose root it is,
    or with which it will go. With --json the rows tell more: by what each is used, and
    what the handler of its request noted.

    \b
      uvmctl mounts
      uvmctl mounts --json | jq -r '.[].target'
    """
    with settings.connect() as client:
        rows = mount_table(client)
    settings.show(rows, lambda: render(rows))
    if rows and "more" in rows[-1]:
        note(f"and {rows[-1]['more']} more, which the answer had no room for")


def render(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the mount table as a table."""
    cells = [
        (
            row["target"],
            row.get("source") if row.get("source") != row["target"] else "",
            row.get("kind"),
            "yes" if row.get("encrypted") else "no",
            row.get("use_count", 0),
            row.get("request"),
            ", ".join(row.get("containers") or ()) or row.get("owner_container"),
        )
        for row in rows
        if "target" in row
    ]
    if not cells:
        return "no mounts"
    headers = ("TARGET", "SOURCE", "KIND", "ENCRYPTED", "USES", "REQUEST", "CONTAINER")
    return table(headers, cells, right=("USES",))
