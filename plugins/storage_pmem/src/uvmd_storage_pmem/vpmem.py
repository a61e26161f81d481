"""``VPMemDevice``: a read-only ext4 layer in persistent memory. What is found, planned and asked."""

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
from uvmd.errors import Refused
from uvmd.linux import paths
from uvmd.linux.verity import VerityInfo
from uvmd_storage_pmem import memory, mounting
from uvmd_storage_pmem.memory import Region
from uvmd_storage_pmem.mounting import Job
from uvmd_storage_pmem.settings import VPMemSettings

#: What the policy framework holds targets against; a host's own paths for pmem do not match it.
LAYER_PATHS = "/run/mounts/scsi/m[0-9]+"


class VPMem(Handler):
    """See the module."""

    settings = VPMemSettings

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self._unfinished = Unfinished(env.state)

    def identity(self, settings: VPMemSettings) -> str:
        return f"path:{settings.mount_path}"

    def keys(self, settings: VPMemSettings, found: Found) -> Iterable[str]:
        yield f"pmem:{settings.number}"

    def find(self, settings: VPMemSettings, verb: Verb, ctx: Context) -> Found:
        """Wait for the device of an Add, and read what the policy is to be asked about.

        A Remove needs no device: what is mounted is known.
        """
        if not paths.is_clean_absolute(settings.mount_path) or settings.mount_path == "/":
            raise Refused("VPMemDevice: MountPath is not a clean absolute path")
        if ctx.strict and settings.mapping is not None:
            raise Refused("multi mapping is not supported with verity")
        if verb is not Verb.ADD:
            return Found()
        region = memory.wait_for_region(self.env, settings, ctx)
        return Found(
            region, memory.read_verity(region) if self._needs_verity(ctx.strict) else None, ctx.deadline
        )

    def _needs_verity(self, strict: bool) -> bool:
        return strict or self.env.config.verity == "always"

    def add(self, settings: VPMemSettings, found: Found, view: View, record: Record | None) -> Plan:
        self._unfinished.look(view.mounts)
        region, info, latest = found
        path = settings.mount_path
        job = Job(path, region, info, latest, shared=bool(view.mounts.of_source(region.source)))

        def apply(undo: Undo, answers: Answers) -> Record:
            self._unfinished.settle(mounting.take_away)
            return mounting.add(self.env, self._unfinished, job, undo)

        claim = Claim(path, region.source, Kind.READ_ONLY)
        return Plan((self._question(settings, info),), apply, claims=(claim,))

    @staticmethod
    def _question(settings: VPMemSettings, info: VerityInfo | None) -> Question:
        path = settings.mount_path
        return Question(
            "mount_device",
            {"target": path, "deviceHash": info.root_digest if info else "", "mountPathRegex": LAYER_PATHS},
            f"mounting pmem device {settings.number} onto {path} denied by policy: ",
        )

    def remove(self, settings: VPMemSettings, found: Found, view: View, record: Record | None) -> Plan:
        path, strict = settings.mount_path, view.strict
        self._unfinished.look(view.mounts)
        stays = self._used_elsewhere(path, record, view)

        def apply(undo: Undo, answers: Answers) -> None:
            self._unfinished.settle(mounting.take_away)
            if strict:
                mounting.require_there(path)
            if record is None:
                return  # never ours, or gone already: not a path to unmount
            mounting.remove(path, record, stays, undo)
            self._unfinished.end(path)

        question = Question(
            "unmount_device",
            {"unmountTarget": path},
            f"unmounting pmem device from {path} denied by policy: ",
        )
        release = Claim(path, self._stated_source(settings, record), Kind.READ_ONLY)
        return Plan((question,), apply, releases=(release,))

    @staticmethod
    def _used_elsewhere(path: str, record: Record | None, view: View) -> bool:
        """Tell whether another path shows the same region."""
        if record is None:
            return False
        return any(other.target != path for other in view.mounts.of_source(record["source"]))

    def _stated_source(self, settings: VPMemSettings, record: Record | None) -> str:
        """What the request says is mounted; the device itself is not looked for, it may be gone."""
        if record is None:
            return ""
        mapping = settings.mapping
        region = Region(settings.number, f"{self.env.platform.dev_root}/pmem{settings.number}", -1)
        if mapping is not None:
            region = region._replace(offset=mapping.offset, size=mapping.size)
        return region.source
