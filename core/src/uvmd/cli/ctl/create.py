"""``uvmctl create`` and ``uvmctl start``."""

from __future__ import annotations

import click

from uvmd.cli.ctl.foreground import require_terminal, run_in_foreground
from uvmd.cli.ctl.settings import Settings, common, pass_settings, read_json
from uvmd.client import bundle_path


@click.command("create")
@click.option("-f", "--file", "path", required=True, metavar="FILE", help="The OCI spec, - for stdin.")
@click.option("--bundle", metavar="DIR", help="Bundle directory in the VM [default: /run/gcs/c/ID].")
@click.option("--scratch", default="", metavar="DIR", help="Scratch directory in the VM.")
@common()
@click.argument("container_id", metavar="ID")
@pass_settings
def create_verb(settings: Settings, container_id: str, path: str, bundle: str | None, scratch: str) -> None:
    """Create the container ID from an OCI spec (config.json).

    Its init process exists afterwards and waits for `uvmctl start`. Paths in the spec are
    paths in the VM.

    \b
      uvmctl run --print-spec /srv/rootfs sleep 60 > spec.json
      uvmctl create -f spec.json nap
      uvmctl start nap
    """
    spec = read_json(path)
    if not isinstance(spec, dict):
        raise click.ClickException(f"{path} is no OCI spec: expected a JSON object")
    with settings.connect() as client:
        with settings.step("create"):
            client.create(
                container_id, bundle=bundle or bundle_path(container_id), spec=spec, scratch=scratch
            )
    settings.show({"id": container_id}, container_id)


@click.command("start")
@click.option("-a", "--attach", is_flag=True, help="Connect its output, wait, exit with its status.")
@click.option("-i", "--interactive", is_flag=True, help="Connect our stdin; implies -a.")
@click.option("-t", "--tty", is_flag=True, help="Its spec asks for a terminal; implies -a.")
@common()
@click.argument("container_id", metavar="ID")
@pass_settings
def start_verb(settings: Settings, container_id: str, attach: bool, interactive: bool, tty: bool) -> int:
    """Start the created container ID.

    Streams can be connected at this moment only. Without -a its output is dropped.

    \b
      uvmctl start web              in the background
      uvmctl start -a job           with its output, until it ends
      uvmctl start -it shell        created with "terminal": true
    """
    attach = attach or interactive or tty
    require_terminal(tty)
    with settings.connect() as client:
        with settings.step("start"):
            client.start(container_id)
            process = client.run_init(
                container_id, stdin=interactive, stdout=attach, stderr=attach and not tty
            )
        if not attach:
            settings.show({"id": container_id, "pid": process.pid}, container_id)
            return 0
        with process:
            return run_in_foreground(
                process,
                interactive=interactive,
                terminal=tty,
                kill=lambda: client.terminate(container_id),
            )
