"""``env.state``: what a distribution keeps over a restart of the daemon."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

from uvmd.codec import compact
from uvmd.host.entries import Entries, Mark, mark_of
from uvmd.host.latest import Latest

_encode = compact.encoder()


class FileState:
    """One JSON object in a file, owner-only, and a log of entries beside it."""

    def __init__(self, path: str) -> None:
        self._file = Latest(path)
        self._mutex = threading.Lock()
        self._entries = Entries(f"{path}.log")
        self._mark: Mark | None = None

    def load(self) -> dict[str, Any]:
        """Return what was saved last, else an empty object.

        Raises:
            OSError, ValueError: it is there and cannot be read.
        """
        with self._mutex:
            text = self._file.read()
            value: dict[str, Any] = {} if text is None else json.loads(text)
            self._mark = mark_of(text or b"")
        return value

    def entries(self) -> list[dict[str, Any]]:
        """Return what was appended since, oldest first.

        Raises:
            OSError, ValueError: it is there and cannot be read.
        """
        with self._mutex:
            return self._entries.read(self._owner())

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add an entry to the log of what was saved last.

        Raises:
            OSError: it could not be written.
        """
        with self._mutex:
            self._entries.append(entry, self._owner())

    def _owner(self) -> Mark:
        if self._mark is None:
            self._mark = mark_of(self._file.read() or b"")
        return self._mark

    def save(self, value: Mapping[str, Any]) -> None:
        """Keep ``value`` in place of what was there; its log is empty.

        Raises:
            OSError: it could not be written; the old value stays.
        """
        text = _encode(dict(value)).encode()
        with self._mutex:
            self._file.keep(text)
            self._mark = mark_of(text)
            self._entries.end()
