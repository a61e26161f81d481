"""The cgroup of the daemon and its monitor: protected, and watched for using too much.

Where systemd starts us it has done so already, and a process that leaves its unit's group is
lost to it: the option is empty there. ``gcs`` uses ``/gcs``, as the reference (spec
containers.md 3.2, 3.4).
"""

from __future__ import annotations

import logging
import os
from typing import Final

from uvmd.errors import ConfigError
from uvmd.linux import memory_events
from uvmd.linux.cgroups import ROOT, Cgroups
from uvmd.linux.notices import Notices

log = logging.getLogger(__name__)

#: After a warning there is none for so long, however the usage goes up and down.
QUIET_S: Final = 60.0


class OwnCgroup:
    """The group at ``path``; ``pids`` are moved into it."""

    def __init__(self, cgroups: Cgroups, path: str, pids: tuple[int, ...]) -> None:
        self._cgroups = cgroups
        self._path = "/" + path.strip("/")
        self._pids = pids
        self._warn_bytes = 0
        self._quiet = False

    def enter(self, protected_bytes: int) -> None:
        """Make the group and move there. Where the kernel can, that much of it is never reclaimed.

        Raises:
            ConfigError: it cannot be made or entered.
        """
        try:
            self._make()
            for pid in self._pids:
                self._move(pid, self._path)
        except OSError as error:
            raise ConfigError(f"cgroups.own {self._path}: {error.filename}: {error.strerror}") from error
        if self._cgroups.version == 2:
            try:
                _write(f"{self._directory(self._path)}/memory.low", str(protected_bytes))
            except OSError as error:
                log.warning(
                    "our memory cannot be protected, ignoring",
                    extra={"cgroup": self._path, "error": error.strerror},
                )

    def watch(self, notices: Notices, warn_bytes: int) -> None:
        """Log a warning when the group uses more than ``warn_bytes``. A failure is logged."""
        self._warn_bytes = warn_bytes
        try:
            notice = memory_events.notice_of_usage(self._cgroups, self._path, warn_bytes)
        except OSError as error:
            log.warning("our memory cannot be watched, ignoring", extra={"error": str(error)})
            return
        notices.add(notice, self.look, at_once=True)

    def look(self, noticed: bool) -> float | None:
        """See whether too much is used; see ``linux.notices``. Raises OSError."""
        if noticed and self._quiet:
            return QUIET_S
        warned, self._quiet = self._quiet, False
        memory = memory_events.memory(self._cgroups, self._path)
        # Version 2 tells when the limit is reached, which the usage itself never exceeds by much.
        over = memory.usage is not None and memory.usage >= self._warn_bytes - self._warn_bytes // 32
        if self._cgroups.version == 2 and (over or warned):
            # The kernel slows down who stays above it; it is only there to tell.
            memory_events.set_high(self._cgroups, self._path, None if over else self._warn_bytes)
        if not over:
            return None
        if not warned:
            log.warning(
                "uvmd itself uses much memory",
                extra={
                    "cgroup": self._path,
                    "usage_bytes": memory.usage,
                    "peak_bytes": memory.peak,
                    "warn_bytes": self._warn_bytes,
                },
            )
        self._quiet = True
        return QUIET_S

    def leave(self) -> None:
        """Move everybody to the root group and remove ours: after the end nothing of us is left."""
        try:
            for pid in self._cgroups_members():
                self._move(pid, "")
            os.rmdir(self._directory(self._path))
        except OSError as error:
            log.debug("our cgroup stays", extra={"cgroup": self._path, "error": str(error)})

    def _make(self) -> None:
        if self._cgroups.version == 2:
            # Not the group itself: one that gives controllers to children takes no processes.
            self._cgroups.ensure_group(os.path.dirname(self._path).rstrip("/"))
        os.makedirs(self._directory(self._path), mode=0o755, exist_ok=True)

    def _move(self, pid: int, path: str) -> None:
        _write(f"{self._directory(path)}/cgroup.procs", str(pid))

    def _cgroups_members(self) -> list[int]:
        with open(f"{self._directory(self._path)}/cgroup.procs", encoding="ascii") as file:
            return [int(line) for line in file]

    def _directory(self, path: str) -> str:
        if self._cgroups.version == 2:
            return (self._cgroups.unified or ROOT) + path
        return memory_events.directory(self._cgroups, path)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
