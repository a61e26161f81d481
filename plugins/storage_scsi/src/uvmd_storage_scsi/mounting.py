"""The Add of a disk that has been asked for and allowed: step by step, each with its opposite."""

from __future__ import annotations

import errno
import os
import posixpath
import time
from typing import Final, NamedTuple

from uvmd.api import Environment, Record, Undo, Unfinished
from uvmd.errors import Failed, InUse
from uvmd.linux import block, devmapper, filesystems, mount_points, mounts, paths, verity
from uvmd.linux.filesystems import Content, read_only_options
from uvmd.linux.syscalls import MS_RDONLY
from uvmd.linux.verity import VerityInfo
from uvmd_storage_scsi import crypt, links
from uvmd_storage_scsi.disks import Disk, limit
from uvmd_storage_scsi.settings import VirtualDiskSettings

_EXCLUSIVE_PAUSE_S: Final = 0.05


def text_of(error: OSError) -> str:
    """What the system said, as hosts are told."""
    return (error.strerror or str(error)).lower()


class Job(NamedTuple):
    """What the plan decided. ``shared``: another mount of the same disk is there already."""

    settings: VirtualDiskSettings
    disk: Disk
    info: VerityInfo | None
    shared: bool
    latest: float

    @property
    def verity_name(self) -> str:
        """The dm-verity device's name; "" without a hash tree."""
        return f"dm-verity-{self.disk.dm_suffix}-{self.info.root_digest}" if self.info else ""

    @property
    def source(self) -> str:
        """The node of what is mounted or linked, before it is encrypted."""
        return f"{devmapper.DIRECTORY}/{self.verity_name}" if self.info else self.disk.path

    @property
    def crypt_name(self) -> str:
        """The dm-crypt device's name; "" for a disk that is not encrypted."""
        encrypted = self.settings.encrypted and not self.settings.block_dev
        return f"dm-crypt-{self.disk.dm_suffix}" if encrypted else ""


class Adding:
    """Carries out one job."""

    def __init__(self, env: Environment, unfinished: Unfinished, job: Job, undo: Undo) -> None:
        self._env = env
        self._config = env.config
        self._unfinished = unfinished
        self._job = job
        self._undo = undo

    def __call__(self) -> Record:
        """Do it; return what the Remove will need.

        Raises:
            Failed, DeadlineExceeded, InUse: with the step; what was done is registered.
        """
        job = self._job
        path = job.settings.mount_path
        self._require_same_device()
        directories = self._directories(path)
        self._begin(path, directories)
        if job.settings.block_dev:
            self._link(job.source, path)
        else:
            self._mount(job.source, path)
        return {
            "v": 1,
            "device": job.disk.path,
            "controller": job.settings.controller,
            "lun": job.disk.lun,
            "partition": job.disk.partition,
            "verity": job.verity_name,
            "crypt": job.crypt_name,
            "link": job.source if job.settings.block_dev else "",
            "made": directories,
        }

    def _require_same_device(self) -> None:
        """What was found is open; its path must still mean the same."""
        disk = self._job.disk
        try:
            if block.device_number(disk.path) == block.device_number(disk.fd):
                return
        except OSError as error:
            raise Failed(f"{disk.path}: {text_of(error)}") from error
        raise Failed(f"{disk.path} is another device now")

    def _directories(self, path: str) -> list[str]:
        place = posixpath.dirname(path) if self._job.settings.block_dev else path
        return mount_points.directories_of(
            place, [facts["made"] for facts in self._unfinished.noted().values()]
        )

    def _begin(self, path: str, directories: list[str]) -> None:
        """Note what is going to be made, for the daemon that comes should this one be killed."""
        job = self._job
        verity_name, crypt_name = job.verity_name, job.crypt_name
        facts: Record = {
            "v": 1,
            "device": list(block.device_number(job.disk.fd)),
            "verity": "" if job.shared else verity_name,
            "crypt": "" if job.shared else crypt_name,
            "over": verity_name or crypt_name,
            "link": job.source if job.settings.block_dev else "",
            "made": directories,
        }
        self._unfinished.begin(path, facts)
        self._undo.callback(self._unfinished.end, path, step="forget that it was begun")

    # The device

    def _make_verity(self) -> None:
        """Make the device of a disk with a hash tree.

        As the last thing before it is used: it wakes udev, which then competes with us.
        """
        job = self._job
        if job.info is None:
            return
        deadline = limit(self._config.mount_timeout_s, job.latest)
        target = verity.table(job.info, job.disk.path)
        try:
            _, made = devmapper.ensure(job.verity_name, [target], deadline=deadline)
        except OSError as error:
            text = f"failed to create dm-verity target for device={job.disk.path}: {text_of(error)}"
            raise Failed(text) from error
        if made:
            self._undo.callback(devmapper.remove, job.verity_name, step=f"remove {job.verity_name}")

    def _encrypted(self) -> str:
        job = self._job
        path = f"{devmapper.DIRECTORY}/{job.crypt_name}"
        if job.shared:
            return path
        if devmapper.exists(job.crypt_name):
            raise InUse(f"{job.crypt_name} is open, and nothing is known of it")
        self._wait_for_exclusive()
        deadline = limit(self._config.tools_timeout_s, job.latest)
        return crypt.open_encrypted(self._env.run, job.disk.path, job.crypt_name, deadline, self._undo)

    def _wait_for_exclusive(self) -> None:
        """Wait until nobody else holds the disk: udev, or a mkfs that outlived its daemon.

        There is no event for that.
        """
        path = self._job.disk.path
        began = time.monotonic()
        deadline = limit(self._config.device_timeout_s, self._job.latest)
        while True:
            try:
                os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
                return
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise Failed(f"open {path}: {text_of(error)}") from error
            if time.monotonic() >= deadline:
                raise InUse(f"{path} is in use, after {time.monotonic() - began:.1f} s")
            time.sleep(_EXCLUSIVE_PAUSE_S)

    # The path

    def _link(self, source: str, path: str) -> None:
        """Put a symlink at the path that names the device's node and nothing between."""
        parent, name = posixpath.split(path)
        try:
            fd, made = self._parent(parent)
            try:
                self._undo.callback(
                    mount_points.remove_directories, made, step=f"remove the directory {parent}"
                )
                self._make_verity()
                os.symlink(source, name, dir_fd=fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise Failed(f"symlink {path} to {source}: {text_of(error)}") from error
        self._undo.callback(links.remove, path, source, step=f"remove the link {path}")

    @staticmethod
    def _parent(path: str) -> tuple[int, list[str]]:
        if path == "/":
            return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), []
        return paths.ensure_directory_beneath("/", path[1:], 0o700)

    def _mount(self, source: str, path: str) -> None:
        settings, undo = self._job.settings, self._undo
        try:
            with mount_points.make_mount_point(path, undo) as fd:
                source, fstype, data = self._prepared(source)
                self._make_verity()
                try:
                    mounts.mount(source, fd, fstype, MS_RDONLY if settings.read_only else 0, data)
                except OSError as error:
                    raise Failed(f"mounting: {source} at {path} as {fstype}: {text_of(error)}") from error
                undo.callback(mounts.unmount_beneath, path, step=f"unmount {path}")
        except OSError as error:
            raise Failed(f"mount point {path}: {text_of(error)}") from error
        self._propagate(path)

    def _prepared(self, source: str) -> tuple[str, str, str]:
        """Make what is to be mounted; return it with its file system's type and mount data."""
        settings, disk = self._job.settings, self._job.disk
        if self._job.crypt_name:
            shared = self._job.shared
            source = self._encrypted()
            content = Content("xfs" if shared else "")
        else:
            content = self._content(disk)
        if settings.ensure_filesystem and content.name != settings.filesystem:
            self._format(source, content)
            content = Content(settings.filesystem)
        fstype = settings.filesystem or content.filesystem
        if not fstype:
            there = f"; there is {content.name}" if content.name else ""
            raise Failed(
                f"getting device's filesystem: could not get device filesystem type of {source}{there}"
            )
        return source, fstype, read_only_options(content, fstype) if settings.read_only else ""

    @staticmethod
    def _content(disk: Disk) -> Content:
        try:
            return filesystems.content(disk.fd)
        except OSError as error:
            raise Failed(f"getting device's filesystem: read {disk.path}: {text_of(error)}") from error

    def _format(self, source: str, content: Content) -> None:
        wanted = self._job.settings.filesystem
        if self._job.settings.read_only:
            raise Failed(f"{source} has no {wanted}, and a read-only disk is not formatted")
        if content.name and not self._config.reformat:
            raise Failed(f"{source} has {content.name}, not {wanted}, and reformat is off")
        if not self._job.crypt_name:
            self._wait_for_exclusive()
        deadline = limit(self._config.tools_timeout_s, self._job.latest)
        filesystems.format(self._env.run, source, wanted, deadline)

    def _propagate(self, path: str) -> None:
        words = [word for word in self._job.settings.options if word in mounts.PROPAGATION]
        if not words:
            return
        try:
            with mounts.parent_beneath(path) as where:
                for word in words:
                    # One call each: the kernel takes no two at once.
                    mounts.set_propagation(where, mounts.PROPAGATION[word])
        except OSError as error:
            raise Failed(f"mounting: propagation of {path}: {text_of(error)}") from error
