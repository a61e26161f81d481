"""``MappedDirectory``: a directory that the host serves over 9p (spec storage.md 7)."""

from __future__ import annotations

from uvmd.api import (
    Answers,
    Claim,
    Environment,
    Found,
    Handler,
    Kind,
    Plan,
    Question,
    Record,
    Undo,
    Unfinished,
    View,
)
from uvmd.errors import Refused
from uvmd.linux import mount_points
from uvmd_plan9.share import MappedDirectorySettings, require_path, share_of
from uvmd_plan9.steps import Shares


class MappedDirectory(Handler):
    """There is nothing to find: to dial is more than to read, and waits for the policy."""

    settings = MappedDirectorySettings

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self._shares = Shares(env)
        self._unfinished = Unfinished(env.state)

    def identity(self, settings: MappedDirectorySettings) -> str:
        return f"path:{settings.mount_path}"

    def add(self, settings: MappedDirectorySettings, found: Found, view: View, record: Record | None) -> Plan:
        share = share_of(settings)
        self._unfinished.look(view.mounts)

        def apply(undo: Undo, answers: Answers) -> Record:
            if view.strict:
                share.require_strict_name()
            self._unfinished.settle(self._shares.take_away)
            self._unfinished.begin(share.target, {})
            undo.callback(self._unfinished.end, share.target, step="forget what was begun")
            return {"v": 1, **self._shares.mount(share, undo)}

        question = Question(
            "plan9_mount",
            {"rootPrefix": "/run/gcs/c", "mountPathPrefix": "/mounts/m[0-9]+", "target": share.target},
            f"mounting plan9 device at {share.target} denied by policy: ",
        )
        kind = Kind.READ_ONLY if share.read_only else Kind.READ_WRITE
        return Plan((question,), apply, claims=(Claim(share.target, share.source, kind),))

    def remove(
        self, settings: MappedDirectorySettings, found: Found, view: View, record: Record | None
    ) -> Plan:
        target = settings.mount_path
        require_path(target)
        self._unfinished.look(view.mounts)
        if record is None and view.mounts.at(target) is not None:
            raise Refused("MappedDirectory: what is mounted at MountPath is no mapped directory")

        def apply(undo: Undo, answers: Answers) -> None:
            self._unfinished.settle(self._shares.take_away)
            if record is None:
                return  # never ours, or gone already: not a path to unmount
            undo.point_of_no_return(f"unmounting plan9 device at {target}")
            self._shares.unmount(target)
            mount_points.remove_last(target, record["made"])
            self._unfinished.end(target)

        question = Question(
            "plan9_unmount",
            {"unmountTarget": target},
            f"unmounting plan9 device at {target} denied by policy: ",
        )
        return Plan((question,), apply, releases=(Claim(target),))
