"""What is done for a change before its apply, as far as it can be while the policy is asked.

None of it can be seen from outside the daemon: claims in the mount table, a line on record,
what the handler prepares. It is put back when the policy says no, as when a later step fails.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import NamedTuple

from uvmd.api.resources import Keep, Plan, Record
from uvmd.errors import Failed
from uvmd.host.records import Key, Records
from uvmd.host.table import Change, MountTable
from uvmd.observe.steps import step

log = logging.getLogger(__name__)


class Line(NamedTuple):
    """What stands on record of a change: its key, its name in words, and for which request.

    ``asking``: nothing is done before a policy's yes is on record.
    """

    key: Key
    what: str
    request: int
    asking: bool


class Readiness:
    """See the module. One thread alone.

    Args:
        line: None for what is not on record.
        keep: closes a descriptor after the request.
    """

    def __init__(
        self, plan: Plan, table: MountTable, records: Records, line: Line | None, keep: Keep, *, strict: bool
    ) -> None:
        self._plan = plan
        self._table = table
        self._records = records
        self._line = line
        self._keep = keep
        self._strict = strict
        self._free: Sequence[str] = ()
        self._change: Change | None = None

    def look(self) -> None:
        """Find out where nothing is mounted yet. Apart, as a file system may have to be asked."""
        if self._line is not None:
            places = (claim.target for claim in self._plan.claims)
            self._free = [place for place in places if not os.path.ismount(place)]

    def get(self) -> None:
        """Do it; waits for nothing.

        Raises:
            Refused, InUse: the claims do not go with what is mounted.
            Failed: it cannot be recorded.
            whatever the handler's own part raises.
        """
        self._change = self._table.begin(self._plan.claims, self._plan.releases, strict=self._strict)
        if self._line is not None:
            with step("journal"):
                line = self._line
                self._records.begin(*line.key, line.what, line.request, self._free, line.asking)
        if self._plan.prepare is not None:
            with step("prepare"):
                self._plan.prepare(self._keep)

    def commit(self, record: Record | None) -> None:
        """Have the change count for a later daemon, too; None forgets the record.

        Raises:
            Failed: the record is not what a record may be, or it cannot be written.
        """
        if self._change is not None:
            self._change.settle()
        if self._line is not None:
            with step("journal"):
                self._records.commit(*self._line.key, record, self._table)

    def put_back(self) -> None:
        """Undo what was done of it."""
        if self._change is not None:
            self._change.undo()
        if self._line is not None:
            self._records.abort(*self._line.key, self._table)


def take_away(place: str) -> None:
    """Unmount what a daemon that was killed has mounted and not recorded.

    Raises:
        Failed: it is in use.
    """
    from uvmd.linux import mounts, proc

    for _ in range(proc.mounts_at_or_below(place).count(place)):
        log.warning("an interrupted change had mounted something, unmounting it", extra={"path": place})
        try:
            mounts.unmount(place)
        except OSError as error:
            raise Failed(f"{place}: left by an interrupted change: {error.strerror}") from error
