"""What core keeps of the plugins' devices: the record of each, and the mount table.

A record is what an apply returned: plain JSON, small, without secrets, handed to the
remove. With a path the whole is written at each change, as one line; a later daemon reads
the last. What was begun and neither committed nor aborted is what the daemon died in the
middle of.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Collection, Sequence
from typing import Any

from uvmd.api.resources import MAX_RECORD_BYTES, Record
from uvmd.codec import compact
from uvmd.errors import Failed
from uvmd.host.latest import Latest
from uvmd.host.table import MountTable, clean

log = logging.getLogger(__name__)

VERSION = 1
#: Changes that were made and may not be answered yet: the answer follows at once.
MAX_DONE = 64
_encode = compact.encoder(allow_nan=False)
Key = tuple[str, str]
#: The host's request for which a change was begun, and the places where it would mount.
Interrupted = tuple[Any, ...]


class Records:
    """Records by resource type and identity. Without a path nothing outlives the daemon."""

    def __init__(self, path: str = "") -> None:
        self._file = Latest(path) if path else None
        self._mutex = threading.Lock()
        # As they are written: every change writes all of them.
        self._records: dict[Key, str] = {}
        self._doing: dict[Key, str] = {}
        #: Requests of the host: by key the one that is under way, and those that are done and
        #: maybe not answered yet.
        self._for: dict[Key, Interrupted] = {}
        self._done: dict[int, None] = {}
        #: What the policy has said yes to for requests that are under way and wait for that first.
        self._allowed: dict[int, tuple[str, ...]] = {}
        #: What an earlier daemon was doing for requests that will be asked for again.
        self._left: dict[str, Interrupted] = {}
        self._left_allowed: dict[int, tuple[str, ...]] = {}
        self._mounts = "[]"
        #: Parts of the line as they were written last; None after a change of what they say.
        self._settled: str | None = None
        self._under_way: str | None = None

    def get(self, type_: str, identity: str) -> Record | None:
        """Return a copy of the record, if there is one."""
        with self._mutex:
            text = self._records.get((type_, identity))
        record: Record | None = None if text is None else json.loads(text)
        return record

    def begin(
        self,
        type_: str,
        identity: str,
        what: str,
        request: int = 0,
        places: Sequence[str] = (),
        asking: bool = False,
    ) -> None:
        """Note that a change begins, for which request of the host.

        ``places`` are where it will mount, and nothing was mounted before. ``asking``: nothing
        is done before a policy has said yes, and that is noted.

        Raises:
            Failed: it cannot be written, so it must not begin.
        """
        with self._mutex:
            allowed = self._allowed
            self._doing[type_, identity] = what
            self._for[type_, identity] = (request, *places)
            self._under_way = None
            if asking:
                self._allowed = {**allowed, request: ()}
            try:
                self._write()
            except OSError as error:
                self._allowed, self._under_way = allowed, None
                del self._doing[type_, identity], self._for[type_, identity]
                raise Failed(f"{what}: cannot be recorded: {error.strerror}") from error

    def allow(self, request: int, question: str) -> bool:
        """Note that the policy has said yes to a question of a request, before anything follows from it.

        Returns whether a change was begun for the request; if none was, nothing is noted.

        Raises:
            Failed: it cannot be written.
        """
        with self._mutex:
            if all(begun[0] != request for begun in self._for.values()):
                return False
            before = self._allowed
            self._allowed = {**before, request: (*before.get(request, ()), question)}
            try:
                self._write()
            except OSError as error:
                self._allowed = before
                raise Failed(f"the policy's answer cannot be recorded: {error.strerror}") from error
        return True

    def was_allowed(self, request: int, question: str) -> bool:
        """Tell whether the policy has said yes to this for a request that an earlier daemon has begun."""
        return question in self._left_allowed.get(request, ())

    def was_asking(self, request: int) -> bool:
        """Tell whether an earlier daemon has begun a request, and has noted no yes to it here."""
        return self._left_allowed.get(request) == ()

    def commit(self, type_: str, identity: str, record: Record | None, table: MountTable) -> None:
        """Note that a change is done; None forgets the record.

        Raises:
            Failed: the record is not what a record may be, or it cannot be written.
        """
        text = None if record is None else encoded(record)
        with self._mutex:
            before, doing = dict(self._records), self._doing.pop((type_, identity), "")
            begun = self._for.pop((type_, identity), (0,))
            request = begun[0]
            allowed = self._allowed
            self._allowed = {number: said for number, said in allowed.items() if number != request}
            self._done[request] = None
            while len(self._done) > MAX_DONE:
                del self._done[next(iter(self._done))]
            self._records.pop((type_, identity), None)
            if text is not None:
                self._records[type_, identity] = text
            mounts, self._mounts = self._mounts, _encode(table.snapshot())
            self._settled = self._under_way = None
            try:
                self._write()
            except OSError as error:
                self._settled = self._under_way = None
                self._records, self._mounts = before, mounts
                self._doing[type_, identity], self._for[type_, identity] = doing, begun
                self._allowed = allowed
                self._done.pop(request, None)
                raise Failed(f"{doing}: cannot be recorded: {error.strerror}") from error

    def abort(self, type_: str, identity: str, table: MountTable) -> None:
        """Note that a change was undone, if it was begun."""
        with self._mutex:
            if self._doing.pop((type_, identity), None) is not None:
                self._under_way = None
                self._allowed.pop(self._for.pop((type_, identity), (0,))[0], None)
                self._keep(table)

    def keep(self, table: MountTable) -> None:
        """Note what the table holds by now: core itself has taken something away."""
        with self._mutex:
            self._keep(table)

    def was_done(self, request: int) -> bool:
        """Tell whether a request's change was finished, by an earlier daemon too."""
        return request in self._done

    def settle(self, request: int) -> None:
        """What an earlier daemon was doing for a request has its outcome."""
        with self._mutex:
            left = {what: begun for what, begun in self._left.items() if begun[0] != request}
            if len(left) < len(self._left):
                self._left, self._under_way = left, None
                self._left_allowed.pop(request, None)
                self._try_to_write()

    def by_identity(self) -> dict[str, tuple[str, Record]]:
        """Return all there is: by identity the resource type, and a copy of the record."""
        with self._mutex:
            kept = list(self._records.items())
        return {identity: (type_, json.loads(text)) for (type_, identity), text in kept}

    def load(self, table: MountTable, open_requests: Collection[int] = ()) -> dict[str, Interrupted]:
        """Read what an earlier daemon left, fill the table, and return what it was doing, for whom.

        ``open_requests`` are those that have no answer yet.

        Raises:
            OSError, ValueError, KeyError, TypeError: it cannot be read.
        """
        text = self._file.read() if self._file else None
        if text is None:
            return {}
        saved = json.loads(text)
        if saved["v"] != VERSION:
            raise ValueError(f"version {saved['v']!r}, known is {VERSION}")
        with self._mutex:
            self._records = {
                (type_, identity): _encode(record) for type_, identity, record in saved["records"]
            }
            self._done = {number: None for number in saved.get("done", ()) if number in open_requests}
            self._settled = self._under_way = None
            unfinished: list[str] = saved["doing"]
            begun = map(tuple, saved.get("for", [[0]] * len(unfinished)))
            found: dict[str, Interrupted] = dict(zip(unfinished, begun, strict=True))
            self._left = {what: begun for what, begun in found.items() if begun[0] in open_requests}
            for number, *questions in saved.get("allowed", ()):
                if number in open_requests:
                    self._left_allowed[number] = tuple(questions)
            done = frozenset(saved.get("done", ()))
            # The release before had claims on record whose request was still under way.
            left = [begun for begun in found.values() if begun[0] not in done]
            claimed = {clean(place) for _, *places in left for place in places}
            mounts = [row for row in saved["mounts"] if clean(row["target"]) not in claimed]
            self._mounts = _encode(mounts)
        table.restore(mounts)
        return found

    def _keep(self, table: MountTable) -> None:
        self._mounts = _encode(table.snapshot())
        self._try_to_write()

    def _try_to_write(self) -> None:
        try:
            self._write()
        except OSError as error:
            log.warning("the records could not be written, ignoring", extra={"errno": error.errno})

    def _write(self) -> None:
        if self._file is None:
            return
        if self._settled is None:
            records = ",".join(f"{_encode([*key])[:-1]},{text}]" for key, text in self._records.items())
            done = _encode(list(self._done))
            self._settled = f'"done":{done},"records":[{records}]'
        if self._under_way is None:
            doing = _encode([*self._doing.values(), *self._left])
            numbers = _encode([*(self._for.get(key, (0,)) for key in self._doing), *self._left.values()])
            self._under_way = f'"doing":{doing},"for":{numbers}'
        allowed = ""
        if self._allowed or self._left_allowed:
            said = {**self._left_allowed, **self._allowed}
            allowed = f',"allowed":{_encode([[number, *texts] for number, texts in said.items()])}'
        parts = f"{self._under_way}{allowed},{self._settled}"
        self._file.keep(f'{{"v":{VERSION},{parts},"mounts":{self._mounts}}}'.encode())


def encoded(record: object) -> str:
    """Return the text by which a record is kept.

    Raises:
        Failed: no object of plain JSON, or too long.
    """
    if not isinstance(record, dict):
        raise Failed(f"a record is an object, not {type(record).__name__}")
    try:
        text = _encode(record)
    except (TypeError, ValueError, RecursionError):
        raise Failed("a record is plain JSON") from None
    if json.loads(text) != record:
        # Tuples and keys that are no texts would come back as something else.
        raise Failed("a record is plain JSON: lists, and keys that are texts")
    if len(text) > MAX_RECORD_BYTES:
        raise Failed(f"a record has at most {MAX_RECORD_BYTES} bytes, this one has {len(text)}")
    return text
