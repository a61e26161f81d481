"""The Add and the Remove of a layer, once allowed: step by step, each with its opposite."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import NamedTuple

from uvmd.api import Environment, Record, Undo, Unfinished
from uvmd.errors import Failed
from uvmd.linux import block, devmapper, filesystems, mount_points, mounts, verity
from uvmd.linux.devmapper import Target
from uvmd.linux.syscalls import MS_RDONLY
from uvmd.linux.verity import VerityInfo
from uvmd_storage_pmem.memory import Region

log = logging.getLogger(__name__)


class Job(NamedTuple):
    """What the plan decided. ``shared``: the region is mounted at another path already."""

    path: str
    region: Region
    info: VerityInfo | None
    latest: float
    shared: bool

    @property
    def verity_name(self) -> str:
        """The dm-verity device's name; "" without a hash tree."""
        return f"dm-verity-pmem{self.region.number}-{self.info.root_digest}" if self.info else ""


def add(env: Environment, unfinished: Unfinished, job: Job, undo: Undo) -> Record:
    """Mount the layer; return what the Remove will need.

    Raises:
        Failed: with the step; what was done is registered.
    """
    region = job.region
    _require_same_device(region)
    names = [name for name in (region.linear_name, job.verity_name) if name]
    made = mount_points.directories_of(job.path, [facts["made"] for facts in unfinished.noted().values()])
    facts: Record = {
        "v": 1,
        "device": list(block.device_number(region.fd)),
        "over": names,
        "dm": [] if job.shared else names,
        "made": made,
    }
    unfinished.begin(job.path, facts)
    undo.callback(unfinished.end, job.path, step="forget that it was begun")
    _mount(env, job, undo)
    return {"v": 1, "source": region.source, "dm": names, "made": made}


def _require_same_device(region: Region) -> None:
    """What was found is open; its path must still mean the same."""
    try:
        if block.device_number(region.path) == block.device_number(region.fd):
            return
    except OSError as error:
        raise Failed(f"{region.path}: {text_of(error)}") from error
    raise Failed(f"{region.path} is another device now")


def _with_devices(env: Environment, job: Job, undo: Undo) -> str:
    """Make the devices between the layer and its mount, lowest first; return the topmost."""
    region, source = job.region, job.region.source
    deadline = min(time.monotonic() + env.config.mount_timeout_s, job.latest)
    if region.size:
        target = devmapper.linear(region.path, region.offset, region.size)
        what = f"failed to create dm-linear target, device={region.path}, offset={region.offset}"
        _ensure(region.linear_name, target, what, deadline, undo)
    if job.info is not None:
        target = verity.table(job.info, source)
        what = f"failed to create dm-verity target for device={source}"
        source = _ensure(job.verity_name, target, what, deadline, undo)
    return source


def _ensure(name: str, target: Target, what: str, deadline: float, undo: Undo) -> str:
    try:
        node, made = devmapper.ensure(name, [target], deadline=deadline)
    except OSError as error:
        raise Failed(f"{what}: {text_of(error)}") from error
    if made:
        undo.callback(devmapper.remove, name, step=f"remove {name}")
    return node


def _mount(env: Environment, job: Job, undo: Undo) -> None:
    path = job.path
    try:
        with mount_points.make_mount_point(path, undo) as fd:
            content = filesystems.content(job.region.fd, job.region.offset)
            options = [filesystems.read_only_options(content, "ext4")]
            if env.config.dax and job.info is None:
                options.append("dax")
            # As the last thing before they are used: they wake udev, which then competes with us.
            source = _with_devices(env, job, undo)
            try:
                mounts.mount(source, fd, "ext4", MS_RDONLY, ",".join(filter(None, options)))
            except OSError as error:
                there = "" if content.name == "ext4" else f"; there is {content.name or 'no file system'}"
                raise Failed(f"failed to mount {source} onto {path}: {text_of(error)}{there}") from error
            undo.callback(mounts.unmount_beneath, path, step=f"unmount {path}")
    except OSError as error:
        raise Failed(f"mount point {path}: {text_of(error)}") from error


def require_there(path: str) -> None:
    """Refuse to remove what is not there; asked after the policy, or a host could look around.

    Raises:
        Failed: nothing is at the path.
    """
    if not mount_points.exists(path):
        raise Failed(f"unmounting pmem device at {path} failed: directory does not exist")


def remove(path: str, record: Record, stays: bool, undo: Undo) -> None:
    """Unmount the layer, then take away what it lay on, unless another path shows it too.

    Doing it again after a failure goes on where that one ended.

    Raises:
        Failed: it cannot be unmounted, or a device cannot be removed.
    """
    undo.point_of_no_return(f"unmount {path}")
    try:
        mounts.unmount_beneath(path)
        mount_points.remove_directories(record["made"])
        if not stays:
            _remove_devices(record["dm"])
    except OSError as error:
        raise Failed(
            f"unmounting pmem device at {path} failed: failed to unmount target: {path}: {text_of(error)}"
        ) from error


def _remove_devices(names: Sequence[str]) -> None:
    """Remove the topmost first; one that something still uses goes when it is closed."""
    for name in reversed(names):
        if not devmapper.remove(name, later=True):
            log.error("a dm device is in use and goes when it is closed, ignoring", extra={"dm": name})


def take_away(path: str, facts: Record) -> None:
    """Remove what the Add of a killed daemon had made by then, and nothing else.

    Raises:
        OSError: something is in use.
    """
    devices = [status.device for name in facts["over"] if (status := devmapper.status(name)) is not None]
    major, minor = facts["device"]
    mount_points.unmount_devices(path, [*devices, (major, minor)])
    for name in reversed(facts["dm"]):
        devmapper.remove(name)
    mount_points.remove_directories(facts["made"])


def text_of(error: OSError) -> str:
    """What the system said, as hosts are told."""
    return (error.strerror or str(error)).lower()
