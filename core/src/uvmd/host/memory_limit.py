"""The cgroup above all containers, and its memory limit (spec containers.md 3.2, 3.3)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from uvmd.errors import Failed
from uvmd.host.timers import Timers
from uvmd.linux import proc
from uvmd.linux.cgroups import Cgroups

log = logging.getLogger(__name__)

REFRESH_S: Final = 60.0


class MemoryLimit:
    """Keeps the limit at total memory less the reserve; memory may be added to a running VM."""

    def __init__(
        self,
        cgroups: Cgroups,
        path: str,
        reserve_bytes: int,
        total_bytes: Callable[[], int] = proc.total_memory_bytes,
    ) -> None:
        self._cgroups = cgroups
        self._path = path
        self._reserve = reserve_bytes
        self._total = total_bytes
        self._applied: int | None = None

    def setup(self) -> None:
        """Make the cgroup with its limit.

        Raises:
            Failed: the reserve leaves no memory, or the kernel refused.
        """
        try:
            self._cgroups.ensure_group(self._path)
        except OSError as error:
            raise Failed(f"cgroup {self._path}: {error.filename}: {error.strerror}") from error
        self.refresh()

    def refresh(self) -> None:
        """Work out the limit anew and write it if it is another than before.

        Raises:
            Failed: as :meth:`setup`.
        """
        total = self._total()
        limit = total - self._reserve
        if limit <= 0:
            raise Failed(f"memory limit of {self._path}: {total} bytes in all, {self._reserve} are reserved")
        if limit == self._applied:
            return
        try:
            self._cgroups.set_memory_limit(self._path, limit)
        except OSError as error:
            raise Failed(f"memory limit of {self._path}: {error.filename}: {error.strerror}") from error
        self._applied = limit

    def keep_fresh(self, timers: Timers) -> None:
        """Refresh now and then on the poll thread; failures are logged."""

        def again() -> None:
            try:
                self.refresh()
            except Failed as error:
                log.warning(
                    "memory limit of the pods could not be refreshed, ignoring", extra={"error": str(error)}
                )
            timers.call_later(REFRESH_S, again)

        timers.call_later(REFRESH_S, again)
