"""The Remove of a disk that has been asked for and allowed, and what a killed daemon left."""

from __future__ import annotations

import logging

from uvmd.api import Record, Run, Undo
from uvmd.errors import Failed, InUse
from uvmd.linux import devmapper, mount_points, mounts
from uvmd_storage_scsi import crypt, links
from uvmd_storage_scsi.mounting import text_of

log = logging.getLogger(__name__)


def require_there(path: str) -> None:
    """Refuse to remove what is not there; asked after the policy, or a host could look around.

    Raises:
        Failed: nothing is at the path.
    """
    if not mount_points.exists(path):
        raise Failed(f"unmounting scsi device at {path} failed: directory does not exist")


def remove_mount(run: Run, path: str, record: Record, last: bool, undo: Undo) -> None:
    """Unmount the disk, then take away what it lay on if it was the ``last`` mount of it.

    Doing it again after a failure goes on where that one ended.

    Raises:
        InUse: something is mounted below it. The pod's directories are, until its sandbox is
            deleted, and hosts do not always wait: nothing has happened then.
        Failed: it cannot be unmounted, or what it lay on cannot be removed.
    """
    below = next((one.target for one in mounts.mountinfo() if one.target.startswith(f"{path}/")), None)
    if below is not None:
        raise InUse(f'device at "{path}" is still in use, can\'t unmount: {below} is mounted below it')
    undo.point_of_no_return(f"unmount {path}")
    try:
        mounts.unmount_beneath(path)
        mount_points.remove_directories(record["made"])
    except OSError as error:
        raise Failed(
            f"unmounting scsi device at {path} failed: unmount failed: {path}: {text_of(error)}"
        ) from error
    if not last:
        return
    _remove_verity(record["verity"])
    if record["crypt"]:
        try:
            crypt.close(run, record["crypt"])
        except Failed as error:
            raise Failed(
                f"unmounting scsi device at {path} failed: "
                f"failed to cleanup dm-crypt target {record['crypt']}: {error}"
            ) from error


def remove_link(path: str, record: Record, last: bool, undo: Undo) -> None:
    """Remove the link to the disk's node.

    Raises:
        Refused: something else is at the path.
        Failed, OSError: it cannot be removed.
    """
    links.remove(path, record["link"])
    undo.callback(links.put_back, path, record["link"], step=f"make the link {path} again")
    mount_points.remove_directories(record["made"])
    if last and record["verity"]:
        undo.point_of_no_return(f"remove {record['verity']}")
        _remove_verity(record["verity"])


def _remove_verity(name: str) -> None:
    """Remove the device; one that something still uses goes when it is closed.

    Raises:
        Failed: device-mapper says no.
    """
    if not name:
        return
    try:
        if not devmapper.remove(name, later=True):
            log.error("a dm-verity device is in use and goes when it is closed, ignoring", extra={"dm": name})
    except OSError as error:
        raise Failed(f"failed to remove dm-verity target {name}: {text_of(error)}") from error


def take_away(run: Run, path: str, facts: Record) -> None:
    """Remove what the Add of a killed daemon had made by then.

    Only what is certainly its own: a mount of its devices, its link, the dm devices and
    directories that were not there before it.

    Raises:
        OSError, Failed: something is in use.
    """
    ours = {tuple(facts["device"])}
    if facts["over"] and (status := devmapper.status(facts["over"])) is not None:
        ours.add(status.device)
    mount_points.unmount_devices(path, ours)
    if facts["link"]:
        links.remove(path, facts["link"])
    if facts["crypt"]:
        crypt.take_away(run, facts["crypt"])
    if facts["verity"]:
        devmapper.remove(facts["verity"])
    mount_points.remove_directories(facts["made"])
