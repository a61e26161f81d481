"""``uvmctl attach`` and ``uvmctl layers``: requests that mount something in the VM."""

from __future__ import annotations

import posixpath
from typing import Any

import click

from uvmd.cli.ctl.settings import Settings, common, pass_settings
from uvmd.cli.ctl.storage_words import SCSI_ADDRESS


@click.group("attach")
@common()
def attach_verb() -> None:
    """Mount a disk, a piece of persistent memory or a shared directory in the VM.

    The device itself is attached by the VM's host (QMP, a Hyper-V tool); this is the
    request that makes the guest wait for it and mount it.

    \b
      uvmctl attach scsi --read-only 0:1 /run/mounts/scsi/m1
      uvmctl attach scsi --encrypted --format xfs 0:2 /run/mounts/scsi/m2
      uvmctl attach pmem 0 /run/layers/p0
      uvmctl attach 9p --port 564 --share 1 /run/gcs/c/web/mounts/m0
    """


def _send(settings: Settings, resource_type: str, request: dict[str, Any], path: str) -> None:
    with settings.connect() as client, settings.step(resource_type):
        client.modify(resource_type, request)
    settings.show({"attached": path}, "")


@attach_verb.command("scsi")
@click.option("--read-only", "--ro", is_flag=True, help="Mount it read-only.")
@click.option("-p", "--partition", type=click.IntRange(0), default=0, metavar="N", help="0: all of it.")
@click.option("--encrypted", is_flag=True, help="Encrypt it with a key that only the VM has. Erases it.")
@click.option("--format", "wanted", metavar="TYPE", help="Make it ext4 or xfs unless it is. May erase it.")
@click.option("--filesystem", metavar="TYPE", help="What it holds [default: looked up].")
@click.option("--block-device", is_flag=True, help="Make PATH a link to the device; mount nothing.")
@click.option("--option", "options", multiple=True, metavar="WORD", help="A mount option; may be repeated.")
@common()
@click.argument("address", type=SCSI_ADDRESS, metavar="[CONTROLLER:]LUN")
@click.argument("path")
@pass_settings
def scsi(
    settings: Settings,
    address: tuple[int, int],
    path: str,
    read_only: bool,
    partition: int,
    encrypted: bool,
    wanted: str | None,
    filesystem: str | None,
    block_device: bool,
    options: tuple[str, ...],
) -> None:
    """Mount the disk at LUN of CONTROLLER [default: 0] at PATH.

    \b
      uvmctl attach scsi --read-only 1 /run/mounts/scsi/m1      a layer
      uvmctl attach scsi --format ext4 0:2 /run/mounts/scsi/m2  a scratch disk
      uvmctl attach scsi -p 1 --block-device 3 /run/dev/data    a partition, for a container
    """
    if wanted and filesystem and wanted != filesystem:
        raise click.UsageError("--format and --filesystem name two types")
    controller, lun = address
    request = {
        "MountPath": path,
        "Controller": controller,
        "Lun": lun,
        "Partition": partition,
        "ReadOnly": read_only,
        "Encrypted": encrypted,
        # As hosts send it: a strict VM takes nothing else.
        "Options": [*(["ro"] if read_only else []), *options],
        "BlockDev": block_device,
        "EnsureFilesystem": bool(wanted),
        "Filesystem": wanted or filesystem or "",
    }
    _send(settings, "MappedVirtualDisk", request, path)


@attach_verb.command("pmem", short_help="Mount a persistent memory device at PATH.")
@click.option("--offset", type=click.IntRange(0), metavar="BYTES", help="Where it begins; with --size.")
@click.option("--size", type=click.IntRange(1), metavar="BYTES", help="How long it is; with --offset.")
@common()
@click.argument("device", type=click.IntRange(0, 0xFFFF_FFFF), metavar="NUMBER")
@click.argument("path")
@pass_settings
def pmem(settings: Settings, device: int, path: str, offset: int | None, size: int | None) -> None:
    """Mount the persistent memory device NUMBER (/dev/pmemNUMBER), or a part of it, at PATH, read-only.

    \b
      uvmctl attach pmem 0 /run/layers/p0
      uvmctl attach pmem 0 --offset 0 --size 8388608 /run/layers/p0-0-8388608
    """
    if (offset is None) != (size is None):
        raise click.UsageError("--offset and --size go together")
    request: dict[str, Any] = {"DeviceNumber": device, "MountPath": path}
    if size is not None:
        request["MappingInfo"] = {"DeviceOffsetInBytes": offset, "DeviceSizeInBytes": size}
    _send(settings, "VPMemDevice", request, path)


@attach_verb.command("9p")
@click.option("--port", type=click.IntRange(1, 0x7FFF_FFFF), default=564, help="Of the host [default: 564].")
@click.option("--share", default="", metavar="NAME", help="The name under which the server attaches it.")
@click.option("--read-only", "--ro", is_flag=True, help="Mount it read-only.")
@common()
@click.argument("path")
@pass_settings
def nine_p(settings: Settings, path: str, port: int, share: str, read_only: bool) -> None:
    """Mount a directory that the host serves over 9p at PATH.

    \b
      uvmctl attach 9p --share 1 /run/gcs/c/web/mounts/m0
    """
    request = {"MountPath": path, "Port": port, "ShareName": share, "ReadOnly": read_only}
    _send(settings, "MappedDirectory", request, path)


@click.command("layers")
@click.option("--id", "container_id", metavar="ID", help="The container [default: the name above ROOT].")
@click.option("--scratch", default="", metavar="DIR", help="For what is written [default: read-only].")
@common()
@click.argument("root")
@click.argument("layers", nargs=-1, required=True, metavar="LAYER...")
@pass_settings
def layers_verb(
    settings: Settings, root: str, layers: tuple[str, ...], container_id: str | None, scratch: str
) -> None:
    """Put a container's ROOT together from LAYERs, the topmost first.

    All paths are paths in the VM; layers and scratch are usually mounts that `attach` made.

    \b
      uvmctl layers --scratch /run/mounts/scsi/m2/scratch/web \\
          /run/gcs/c/web/rootfs /run/mounts/scsi/m1 /run/mounts/scsi/m0
      uvmctl create -f spec.json web
      uvmctl detach /run/gcs/c/web/rootfs
    """
    request = {
        "ContainerID": container_id or posixpath.basename(posixpath.dirname(root)),
        "ContainerRootPath": root,
        "Layers": [{"Path": layer} for layer in layers],
        "ScratchPath": scratch,
    }
    _send(settings, "CombinedLayers", request, root)
