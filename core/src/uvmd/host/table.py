"""What is mounted where, as far as requests made it so: the mount table.

One table, always there (spec storage.md 13.2). A plan's claims are entered before its
apply and its releases taken out before it; both come back when the request fails. Some
conflicts are refused in every VM, the rest only in a strict one, where elsewhere they are
logged: hosts of the older generation do things that the newer one forbids.

Paths are compared by their cleaned text and by whole components; nothing here looks at
the file system.
"""

from __future__ import annotations

import logging
import posixpath
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from uvmd.api.resources import Claim, Kind, Mount
from uvmd.errors import InUse, Refused

log = logging.getLogger(__name__)


#: What a longer one would cost in memory is not worth it.
_KEPT_CHARACTERS: Final = 256


def clean(path: str) -> str:
    """Return the shortest path that is the same by its text alone; ``""`` becomes ``"."``."""
    return _kept_clean(path) if len(path) <= _KEPT_CHARACTERS else _clean(path)


def _clean(path: str) -> str:
    cleaned = posixpath.normpath(path)
    # POSIX gives two leading slashes a meaning of their own, Linux does not.
    return cleaned[1:] if cleaned.startswith("//") else cleaned


# Each container asks for the layers of its image several times.
_kept_clean = lru_cache(512)(_clean)


class _Entry:
    """A claim in the table, with the entries that it rests on."""

    __slots__ = ("claim", "rests_on", "uses")

    def __init__(self, claim: Claim, rests_on: list[_Entry]) -> None:
        self.claim = claim
        self.rests_on = rests_on
        self.uses = 0

    def mount(self) -> Mount:
        claim = self.claim
        return Mount(
            claim.target, claim.source, claim.kind or Kind.READ_WRITE, bool(claim.encrypted), self.uses
        )


class Change:
    """What a request changes in the table. Until it is settled the table on record is without it."""

    __slots__ = ("_done", "_mutex", "_under_way", "entered", "left")

    def __init__(self, mutex: threading.Lock, under_way: list[Change]) -> None:
        self._mutex = mutex
        self._under_way = under_way
        self._done: list[Callable[[], None]] = []
        #: Entries that the table has by it, and those that it has no more.
        self.entered: list[_Entry] = []
        self.left: list[_Entry] = []

    def settle(self) -> None:
        """Have it count for a later daemon, too."""
        with self._mutex:
            self._end()

    def undo(self) -> None:
        """Put the table back as it was."""
        with self._mutex:
            self.unwind()

    # Under the mutex

    def note(self, opposite: Callable[[], None]) -> None:
        """Note how a step is undone."""
        self._done.append(opposite)

    def unwind(self) -> None:
        """Undo all steps."""
        while self._done:
            self._done.pop()()
        self._end()

    def _end(self) -> None:
        if self in self._under_way:
            self._under_way.remove(self)


class MountTable:
    """See the module. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._under_way: list[Change] = []

    # Reading

    def at(self, path: str) -> Mount | None:
        """The entry at exactly this path."""
        with self._mutex:
            entry = self._entries.get(clean(path))
            return None if entry is None else entry.mount()

    def containing(self, path: str) -> Mount | None:
        """The deepest entry that is this path or contains it."""
        with self._mutex:
            entry = self._containing(path)
            return None if entry is None else entry.mount()

    def is_encrypted(self, path: str) -> bool:
        """Whether the deepest entry containing the path is read-write and encrypted.

        Below a read-only mount or an overlay the answer is no, which is the safer one
        where the two generations of hosts differ.
        """
        found = self.containing(path)
        return found is not None and found.kind is Kind.READ_WRITE and found.encrypted

    def of_source(self, source: str) -> Sequence[Mount]:
        """The entries that come from this source."""
        with self._mutex:
            return [entry.mount() for entry in self._entries.values() if entry.claim.source == source]

    def of_container(self, container_id: str) -> Sequence[Claim]:
        """What core unmounts and releases when this container is deleted; the newest first."""
        with self._mutex:
            claims = [entry.claim for entry in self._entries.values()]
        return [claim for claim in reversed(claims) if container_id and claim.owner_container == container_id]

    def claims(self) -> list[Claim]:
        """All claims, in the order in which they came about."""
        with self._mutex:
            return [entry.claim for entry in self._entries.values()]

    def rows(self) -> list[dict[str, Any]]:
        """The whole table for people, in the order in which it came about."""
        with self._mutex:
            users: dict[str, set[str]] = {}
            for entry in self._entries.values():
                for below in entry.rests_on:
                    users.setdefault(below.claim.target, set()).add(entry.claim.target)
            return [
                {
                    **self._saved(entry),
                    "use_count": entry.uses,
                    "used_by": sorted(users.get(entry.claim.target, ())),
                }
                for entry in self._entries.values()
            ]

    # Changing

    def change(
        self, claims: Iterable[Claim] = (), releases: Iterable[Claim] = (), *, strict: bool
    ) -> Callable[[], None]:
        """Take out ``releases``, enter ``claims``: all of it, or an error and nothing.

        Returns what puts the table back as it was.

        Raises:
            Refused: a target is taken, or a release names another source, another
                encryption or (strict) another kind.
            InUse: strict, and something rests on what is to be released.
        """
        change = self.begin(claims, releases, strict=strict)
        change.settle()
        return change.undo

    def begin(self, claims: Iterable[Claim] = (), releases: Iterable[Claim] = (), *, strict: bool) -> Change:
        """Do what :meth:`change` does, for a request that is not done yet; raises the same."""
        change = Change(self._mutex, self._under_way)
        with self._mutex:
            self._under_way.append(change)
            try:
                for release in releases:
                    self._release(release, strict, change)
                for claim in claims:
                    self._claim(claim, change)
            except BaseException:
                change.unwind()
                raise
        return change

    def snapshot(self) -> list[dict[str, Any]]:
        """The table as plain JSON, for :meth:`restore` of a later daemon.

        As if changes under way had not begun: if the daemon dies they are asked for again, and
        must find what they found the first time.
        """
        with self._mutex:
            coming = {entry for change in self._under_way for entry in change.entered}
            kept = {path: entry for path, entry in self._entries.items() if entry not in coming}
            for entry in (entry for change in self._under_way for entry in change.left):
                kept.setdefault(entry.claim.target, entry)
            return [self._saved(entry) for entry in kept.values()]

    def restore(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Put the table as it was when ``rows`` was taken, in place of what it holds."""
        with self._mutex:
            self._entries = {}
            for row in rows:
                claim = Claim(
                    clean(row["target"]),
                    row["source"],
                    Kind(row["kind"]),
                    row["encrypted"],
                    tuple(row["uses"]),
                    row["owner_container"],
                )
                self._entries[claim.target] = _Entry(claim, [])
            # A removal that was undone may have put a layer behind the overlay that uses it.
            for entry in self._entries.values():
                entry.rests_on = self._below(entry.claim)
                for below in entry.rests_on:
                    below.uses += 1

    # Under the mutex

    def _containing(self, path: str) -> _Entry | None:
        path, entries = clean(path), self._entries
        while (entry := entries.get(path)) is None and (cut := path.rfind("/")) >= 0 and path != "/":
            path = path[:cut] or "/"
        return entry

    def _below(self, claim: Claim) -> list[_Entry]:
        """The entries that hold what the claim uses, once for each use; others do not count."""
        return [entry for entry in map(self._containing, claim.uses) if entry is not None]

    def _claim(self, claim: Claim, change: Change) -> None:
        if not claim.target:
            raise Refused("a mount without a path cannot be recorded")
        target = clean(claim.target)
        if target in self._entries:
            raise Refused(f'device at mount path "{target}" already exists')
        entry = _Entry(claim._replace(target=target, kind=claim.kind or Kind.READ_WRITE), self._below(claim))
        self._enter(entry)
        change.entered.append(entry)
        change.note(lambda: self._leave(entry))

    def _release(self, release: Claim, strict: bool, change: Change) -> None:
        target = clean(release.target)
        entry = self._entries.get(target)
        if entry is None:
            return
        self._check(release, entry, strict)
        self._leave(entry)
        change.left.append(entry)
        change.note(lambda: self._enter_again(entry))

    @staticmethod
    def _check(release: Claim, entry: _Entry, strict: bool) -> None:
        """Compare in the order of spec storage.md 11.1."""
        held = entry.claim
        if release.source and release.source != held.source:
            raise Refused(f"wrong sourcePath {release.source}, expected {held.source}")
        wrong: Refused | None = None
        if release.kind is not None and held.kind is not None and release.kind is not held.kind:
            wrong = Refused(f"wrong device type {release.kind.value}, expected {held.kind.value}")
        elif entry.uses:
            wrong = InUse(f'device at "{held.target}" is still in use, can\'t unmount')
        if wrong is not None and strict:
            raise wrong
        if release.encrypted is not None and release.encrypted != bool(held.encrypted):
            stated, expected = (str(flag).lower() for flag in (release.encrypted, bool(held.encrypted)))
            raise Refused(f"encrypted flag wrong, provided {stated}, expected {expected}")
        if wrong is not None:
            log.warning("a removal does not fit what was added, ignoring", extra={"conflict": str(wrong)})

    def _enter(self, entry: _Entry) -> None:
        self._entries[entry.claim.target] = entry
        for below in entry.rests_on:
            below.uses += 1

    def _leave(self, entry: _Entry) -> None:
        self._entries.pop(entry.claim.target, None)
        for below in entry.rests_on:
            below.uses -= 1

    def _enter_again(self, entry: _Entry) -> None:
        """Undo a release; not over what took the path meanwhile (not strict, other keys)."""
        if entry.claim.target in self._entries:
            log.warning("a failed removal's path is taken meanwhile, ignoring")
            return
        self._enter(entry)

    @staticmethod
    def _saved(entry: _Entry) -> dict[str, Any]:
        claim = entry.claim
        return {
            "target": claim.target,
            "source": claim.source,
            "kind": (claim.kind or Kind.READ_WRITE).value,
            "encrypted": bool(claim.encrypted),
            "uses": list(claim.uses),
            "owner_container": claim.owner_container,
        }
