"""What the mount table has to do with containers: what goes with them, and what keeps them.

A plan may claim a mount for a container (the bind of a bundle onto a scratch disk, say).
Nobody asks for it to be taken away: deleting the container does.
"""

from __future__ import annotations

import json
import logging
from typing import Any, Final

from uvmd.api.resources import Claim, Containers, Kind
from uvmd.errors import InUse, Refused
from uvmd.host.records import Records
from uvmd.host.table import MountTable
from uvmd.linux import mounts

log = logging.getLogger(__name__)

#: Below the 64 KiB of an answer, with room for what else is in it.
MAX_ROWS_BYTES: Final = 60_000


class ContainerMounts:
    """The table and its record, as far as operations on containers need them."""

    def __init__(self, table: MountTable | None = None, records: Records | None = None) -> None:
        self.table = table or MountTable()
        self._records = records or Records()

    def require_no_overlay(self, root: str) -> None:
        """Refuse, in a strict VM, to delete a container whose root is still mounted.

        Raises:
            Refused: in the reference's words (spec storage.md 11.1).
        """
        found = self.table.at(root) if root else None
        if found is not None and found.kind is Kind.OVERLAY:
            raise Refused("Denied deleting state of a container with a overlay mount still active")

    def undo(self, container_id: str, *, strict: bool) -> None:
        """Unmount and release what was claimed for a container, the newest first.

        What cannot be unmounted, or is still used, stays in the table; the log says so,
        and removing the directories meets it.
        """
        claims = self.table.of_container(container_id)
        for claim in claims:
            self._undo(claim, strict)
        if claims:
            self._records.keep(self.table)

    def _undo(self, claim: Claim, strict: bool) -> None:
        try:
            put_back = self.table.change(releases=[Claim(claim.target)], strict=strict)
        except InUse as error:
            log.error("a container's mount is still in use, ignoring", extra={"error": str(error)})
            return
        try:
            mounts.unmount_beneath(claim.target)
        except OSError as error:
            put_back()
            log.error(
                "a container's mount could not be unmounted, ignoring",
                extra={"target": claim.target, "errno": error.errno},
            )

    def rows(self, containers: Containers) -> list[dict[str, Any]]:
        """The table for people, each entry with all that is known of it.

        ``request`` is the resource type that made it and ``record`` what its handler noted;
        ``containers`` are those whose root it is. What a host accepts in one answer is
        bounded: of a very large table the details go first, then rows, whose number the
        last one tells as ``more``.
        """
        found = []
        recorded = self._records.by_identity()
        for row in self.table.rows():
            type_, record = recorded.get(f"path:{row['target']}", ("", {}))
            users = list(containers.using_root(row["target"]))
            found.append({**row, "request": type_, "record": record, "containers": users})
        return _fitting(found)


def _fitting(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for detail in ("record", "uses", "used_by"):
        if _size(rows) <= MAX_ROWS_BYTES:
            return rows
        rows = [{key: value for key, value in row.items() if key != detail} for row in rows]
    kept: list[dict[str, Any]] = []
    left_bytes = MAX_ROWS_BYTES
    for row in rows:
        left_bytes -= _size([row])
        if left_bytes < 0:
            return [*kept, {"more": len(rows) - len(kept)}]
        kept.append(row)
    return rows


def _size(rows: list[dict[str, Any]]) -> int:
    """Bytes of the rows as a text within a text: each quote is escaped."""
    return len(json.dumps(json.dumps(rows)))
