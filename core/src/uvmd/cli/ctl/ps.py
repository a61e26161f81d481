"""``uvmctl ps``."""

from __future__ import annotations

from collections.abc import Sequence

import click

from uvmd.cli.ctl.settings import Settings, common, note, pass_settings
from uvmd.cli.ctl.tables import age, table
from uvmd.client.status import ContainerStatus, ProcessStatus, vm_status


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
