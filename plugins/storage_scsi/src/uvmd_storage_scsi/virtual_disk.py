"""``MappedVirtualDisk``: a disk or partition at a path. What is found, planned and asked."""

from __future__ import annotations

from collections.abc import Iterable

from uvmd.api import (
    Answers,
    Claim,
    Context,
    Environment,
    Found,
    Handler,
    Kind,
    Plan,
    Question,
    Record,
    Undo,
    Unfinished,
    Verb,
    View,
)
from uvmd.errors import InUse
from uvmd.linux import verity
from uvmd.linux.verity import VerityInfo
from uvmd_storage_scsi import disks, removing, rules
from uvmd_storage_scsi.disks import Disk
from uvmd_storage_scsi.mounting import Adding, Job
from uvmd_storage_scsi.settings import VirtualDiskSettings

LAYER_PATHS = "/run/mounts/scsi/m[0-9]+"
SCRATCH_PATHS = "/run/gcs/c/[0-9a-fA-F]{64}"


class VirtualDisk(Handler):
    """See the module. A request without a path only waits for its disk."""

    settings = VirtualDiskSettings

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self._unfinished = Unfinished(env.state)

    def identity(self, settings: VirtualDiskSettings) -> str:
        if settings.mount_path:
            return f"path:{settings.mount_path}"
        return disks.lock_name(settings.controller, settings.lun)

    def keys(self, settings: VirtualDiskSettings, found: Found) -> Iterable[str]:
        yield disks.lock_name(settings.controller, settings.lun)

    def find(self, settings: VirtualDiskSettings, verb: Verb, ctx: Context) -> Found:
        """Wait for the disk of an Add, and read what the policy is to be asked about.

        A Remove needs no disk: it may be gone, and what is mounted is known.
        """
        rules.check_places(settings)
        if verb is not Verb.ADD:
            return Found(self._host_of(settings))
        deadline = disks.limit(self.env.config.device_timeout_s, ctx.deadline)
        disk = disks.wait_for_disk(self.env, settings.controller, settings.lun, settings.partition, deadline)
        ctx.keep(disk.fd)
        info = verity.read_info(disk.fd) if self._needs_verity(settings, ctx.strict) else None
        return Found(disk, info, ctx.deadline)

    def _needs_verity(self, settings: VirtualDiskSettings, strict: bool) -> bool:
        wanted = strict or self.env.config.verity == "always"
        return bool(settings.mount_path) and settings.read_only and wanted

    def _host_of(self, settings: VirtualDiskSettings) -> int:
        """The number that texts about a Remove carry: the guest's, while it is there."""
        try:
            return self.env.platform.scsi_host(settings.controller)
        except OSError:
            return settings.controller

    # Add

    def add(self, settings: VirtualDiskSettings, found: Found, view: View, record: Record | None) -> Plan:
        if not settings.mount_path:
            return Plan.nothing()
        self._unfinished.look(view.mounts)
        disk, info, latest = found
        rules.check_add(settings, disk.host, strict=view.strict, verity=info is not None)
        encrypted = settings.encrypted and not settings.block_dev
        job = Job(settings, disk, info, self._is_shared(disk, view, encrypted), latest)

        def apply(undo: Undo, answers: Answers) -> Record:
            self._unfinished.settle(self._take_away)
            return Adding(self.env, self._unfinished, job, undo)()

        claim = Claim(settings.mount_path, disk.path, kind_of(settings), encrypted)
        return Plan((self._question(settings, disk, info),), apply, claims=(claim,))

    @staticmethod
    def _is_shared(disk: Disk, view: View, encrypted: bool) -> bool:
        """Tell whether the disk is mounted elsewhere already.

        Raises:
            InUse: it is, but encrypted where this one is not, or the other way round.
        """
        others = view.mounts.of_source(disk.path)
        for other in others:
            if other.encrypted != encrypted:
                state = "encrypted" if other.encrypted else "not encrypted"
                raise InUse(f"{disk.path} is in use at {other.target}, where it is {state}")
        return bool(others)

    @staticmethod
    def _question(settings: VirtualDiskSettings, disk: Disk, info: VerityInfo | None) -> Question:
        path = settings.mount_path
        device = f"scsi device controller {disk.host} lun {disk.lun} onto {path}"
        if settings.block_dev:
            return Question(
                "mount_blockdev",
                {"target": path},
                f"creating blockdev symlink at {path} (-> scsi controller {disk.host} lun {disk.lun}) "
                "denied by policy: ",
            )
        if settings.read_only:
            asked = {
                "target": path,
                "deviceHash": info.root_digest if info else "",
                "mountPathRegex": LAYER_PATHS,
            }
            return Question("mount_device", asked, f"mounting {device} denied by policy: ")
        return Question(
            "rw_mount_device",
            {
                "target": path,
                "encrypted": settings.encrypted,
                "ensureFilesystem": settings.ensure_filesystem,
                "filesystem": settings.filesystem,
                "mountPathRegex": SCRATCH_PATHS,
            },
            f"mounting {device} denied by policy: ",
        )

    # Remove

    def remove(self, settings: VirtualDiskSettings, found: Found, view: View, record: Record | None) -> Plan:
        path = settings.mount_path
        if not path:
            return Plan.nothing()
        self._unfinished.look(view.mounts)
        (host,) = found
        strict, last = view.strict, self._is_last(path, record, view)

        def apply(undo: Undo, answers: Answers) -> None:
            self._unfinished.settle(self._take_away)
            if strict:
                removing.require_there(path)
            if record is None:
                return  # never ours, or gone already: not a path to unmount
            if record["link"]:
                removing.remove_link(path, record, last, undo)
            else:
                removing.remove_mount(self.env.run, path, record, last, undo)
            self._unfinished.end(path)

        # Not stating that a disk is encrypted is what V1 hosts do; stating it of one that is not, is wrong.
        release = Claim(
            path,
            self._stated_source(settings, record, host),
            kind_of(settings),
            True if settings.encrypted and not settings.block_dev else None,
        )
        return Plan((self._removal(settings, host),), apply, releases=(release,))

    @staticmethod
    def _is_last(path: str, record: Record | None, view: View) -> bool:
        """Tell whether no other path shows the disk that is mounted at this one."""
        if record is None:
            return False
        return all(other.target == path for other in view.mounts.of_source(record["device"]))

    @staticmethod
    def _stated_source(settings: VirtualDiskSettings, record: Record | None, host: int) -> str:
        """What the request says is mounted: the recorded device if it is that disk.

        The disk itself is not looked for, it may be gone.
        """
        stated = (settings.lun, settings.partition)
        if record is None or (record["controller"], record["lun"], record["partition"]) == (
            settings.controller,
            *stated,
        ):
            return "" if record is None else str(record["device"])
        return f"scsi {host}:0:0:{settings.lun} partition {settings.partition}"

    @staticmethod
    def _removal(settings: VirtualDiskSettings, host: int) -> Question:
        path, asked = settings.mount_path, {"unmountTarget": settings.mount_path}
        if settings.block_dev:
            where = f"{path} (-> scsi controller {host} lun {settings.lun})"
            return Question(
                "unmount_blockdev", asked, f"removing blockdev symlink at {where} denied by policy: "
            )
        point = "unmount_device" if settings.read_only else "rw_unmount_device"
        return Question(point, asked, f"unmounting scsi device at {path} denied by policy: ")

    def _take_away(self, path: str, facts: Record) -> None:
        removing.take_away(self.env.run, path, facts)


def kind_of(settings: VirtualDiskSettings) -> Kind:
    """What the mount table says of such a disk."""
    if settings.block_dev:
        return Kind.BLOCK_DEVICE
    return Kind.READ_ONLY if settings.read_only else Kind.READ_WRITE
