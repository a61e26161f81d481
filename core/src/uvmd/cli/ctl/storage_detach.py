"""``uvmctl detach``: the request that takes away what another one has mounted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import click

from uvmd.cli.ctl.settings import Settings, common, note, pass_settings
from uvmd.cli.ctl.storage_words import SCSI_ADDRESS
from uvmd.client import ClientError
from uvmd.client.client import Client
from uvmd.client.status import mount_table


@click.command("detach")
@click.option("--scsi", "disk", type=SCSI_ADDRESS, metavar="[CONTROLLER:]LUN", help="Then drop this disk.")
@common()
@click.argument("paths", nargs=-1, metavar="PATH...")
@pass_settings
def detach_verb(settings: Settings, paths: tuple[str, ...], disk: tuple[int, int] | None) -> int:
    """Unmount what `attach` or `layers` has mounted at each PATH.

    What is there is looked up in the VM's mount table, which its policy must allow. The
    last PATH given goes first: name them in the order in which they were attached.

    \b
      uvmctl detach /run/mounts/scsi/m1
      uvmctl detach --scsi 0:1 /run/mounts/scsi/m1     and unplug the disk
      uvmctl detach --scsi 0:1                         unplug it, nothing is mounted
    """
    if not paths and disk is None:
        raise click.UsageError("name a PATH, or a disk with --scsi")
    done: list[str] = []
    failed = 0
    with settings.connect() as client:
        rows = {row.get("target"): row for row in mount_table(client)} if paths else {}
        for path in reversed(paths):
            try:
                _detach(settings, client, path, rows)
            except ClientError as error:
                if len(paths) == 1:
                    raise
                note(f"{path}: {error}")
                failed = 1
                continue
            done.append(path)
        if disk is not None and not failed:
            with settings.step("SCSIDevice"):
                client.modify("SCSIDevice", {"Controller": disk[0], "Lun": disk[1]}, request_type="Remove")
    settings.show({"detached": done, "unplugged": disk is not None and not failed}, "")
    return failed


def _detach(settings: Settings, client: Client, path: str, rows: Mapping[Any, Mapping[str, Any]]) -> None:
    row = rows.get(path)
    if row is None:
        raise ClientError(f"nothing that a request has mounted is at {path}")
    resource_type, request = removal_of(row)
    with settings.step(resource_type):
        client.modify(resource_type, request, request_type="Remove")


def removal_of(row: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return resource type and settings of the Remove for a row of the mount table.

    Raises:
        ClientError: the row was made by nothing that this verb knows.
    """
    path, resource_type = str(row.get("target")), str(row.get("request"))
    record = row.get("record")
    known: Mapping[str, Any] = record if isinstance(record, dict) else {}
    if resource_type == "CombinedLayers":
        return resource_type, {"ContainerRootPath": path}
    request: dict[str, Any] = {"MountPath": path}
    if resource_type == "MappedVirtualDisk":
        request.update(
            Controller=known.get("controller", 0),
            Lun=known.get("lun", 0),
            Partition=known.get("partition", 0),
            ReadOnly=row.get("kind") == "RO",
            BlockDev=row.get("kind") == "BlockDev",
        )
    elif resource_type == "VPMemDevice":
        request.update(_region(str(row.get("source"))))
    elif resource_type != "MappedDirectory":
        made = f"by {resource_type}" if resource_type else "on the way of another request"
        raise ClientError(f"{path} was mounted {made}; detach does not know how to take it away")
    return resource_type, request


def _region(source: str) -> dict[str, Any]:
    """Return the settings that name a region, from the node that shows it."""
    match = re.search(r"pmem([0-9]+)(?:-([0-9]+)-([0-9]+))?$", source)
    if match is None:
        raise ClientError(f"{source} is not persistent memory")
    number, offset, size = match.groups()
    region: dict[str, Any] = {"DeviceNumber": int(number)}
    if size is not None:
        region["MappingInfo"] = {"DeviceOffsetInBytes": int(offset), "DeviceSizeInBytes": int(size)}
    return region
