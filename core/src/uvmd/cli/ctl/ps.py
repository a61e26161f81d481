"""``uvmctl ps`` and ``uvmctl mounts``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from uvmd.cli.ctl.settings import Settings, common, note, pass_settings
from uvmd.cli.ctl.tables import age, table
from uvmd.client.status import ContainerStatus, ProcessStatus, mount_table, vm_status


@click.command("ps")
@click.option("-q", "--quiet", is_flag=True, help="Print container ids only.")
@common()
@pass_settings
def ps_verb(settings: Settings, quiet: bool) -> None:
    """List the VM's containers, running or not, and processes started with `exec --vm`.

    PID is the init process's, as the VM sees it; EXECS counts further processes that run.

    \b
      uvmctl ps
      uvmctl ps --json | jq -r '.containers[].id'
      uvmctl rm -f $(uvmctl ps -q)
    """
    with settings.connect() as client:
        status = vm_status(client)
    if quiet:
        for container in status.containers:
            click.echo(container.id)
        return
    settings.show(status.raw, lambda: render(status.containers, status.processes))
    if status.inconsistent:
        note(f"the VM is inconsistent, changes are refused: {status.inconsistent}")
    if status.degraded:
        note(f"the VM is degraded: {status.degraded}")


def render(containers: Sequence[ContainerStatus], processes: Sequence[ProcessStatus]) -> str:
    """Return the tables of containers and, if there are any, of processes in the VM."""
    parts = ["no containers"]
    if containers:
        rows = [
            (
                container.id,
                container.state,
                container.pid or "",
                container.exit_code,
                sum(process.exit_code is None for process in container.execs) or "",
                age(container.age_s),
            )
            for container in containers
        ]
        headers = ("ID", "STATE", "PID", "EXIT", "EXECS", "AGE")
        parts = [table(headers, rows, right=("PID", "EXIT", "EXECS", "AGE"))]
    if processes:
        found = [
            (process.pid, process.exit_code, "yes" if process.terminal else "no") for process in processes
        ]
        parts.append(table(("PID IN VM", "EXIT", "TERMINAL"), found, right=("PID IN VM", "EXIT")))
    return "\n\n".join(parts)


@click.command("mounts")
@common()
@pass_settings
def mounts_verb(settings: Settings) -> None:
    """List what requests have mounted in the VM.

    USES counts what rests on a mount: an overlay on its layers, a container on its disk.
    A mount that is used cannot be removed.

    \b
      uvmctl mounts
      uvmctl mounts --json | jq -r '.[].target'
    """
    with settings.connect() as client:
        rows = mount_table(client)
    settings.show(rows, lambda: render_mounts(rows))


def render_mounts(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the mount table as a table."""
    if not rows:
        return "no mounts"
    cells = [
        (
            row.get("target"),
            row.get("source"),
            row.get("kind"),
            "yes" if row.get("encrypted") else "no",
            row.get("use_count", 0),
            row.get("owner_container"),
        )
        for row in rows
    ]
    return table(("TARGET", "SOURCE", "KIND", "ENCRYPTED", "USES", "CONTAINER"), cells, right=("USES",))
