"""``uvmctl modify``."""

from __future__ import annotations

from typing import Any

import click

from uvmd.cli.ctl.settings import Settings, common, pass_settings, read_json
from uvmd.client import NULL_ID


@click.command("modify")
@click.option("-f", "--file", "path", required=True, metavar="FILE", help="The request, - for stdin.")
@click.option("--id", "container_id", default=NULL_ID, metavar="ID", help="A container [default: the VM].")
@common()
@pass_settings
def modify_verb(settings: Settings, path: str, container_id: str) -> None:
    """Send a ModifySettings request: add, remove or update a device or a setting.

    FILE holds the request as the protocol has it, or a list of them, done in order until
    one fails. RequestType is Add where it is left out. `uvmd schema` (in the VM) prints the
    settings of each resource type.

    \b
      uvmctl modify -f disk.json
        {"ResourceType": "MappedVirtualDisk",
         "Settings": {"Controller": 0, "Lun": 1, "MountPath": "/run/mounts/d1", "ReadOnly": true}}
      echo '{"ResourceType": "ContainerConstraints", "RequestType": "Update",
             "Settings": {"Linux": {"memory": {"limit": 67108864}}}}' | uvmctl modify --id web -f -
    """
    requests = _requests(read_json(path), path)
    with settings.connect() as client:
        for request in requests:
            with settings.step(request["ResourceType"]):
                client.modify(
                    request["ResourceType"],
                    request.get("Settings"),
                    request_type=request.get("RequestType") or "Add",
                    container_id=container_id,
                )
    settings.show({"done": len(requests)}, "")


def _requests(document: Any, path: str) -> list[dict[str, Any]]:
    requests = document if isinstance(document, list) else [document]
    for request in requests:
        if not isinstance(request, dict) or not isinstance(request.get("ResourceType"), str):
            raise click.ClickException(f"{path}: expected an object with a ResourceType, or a list of such")
    return requests
