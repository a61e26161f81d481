"""``env.state``: what a distribution keeps over a restart of the daemon."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Mapping
from typing import Any

from uvmd.plugin_manager.entries import Entries, Mark, mark_of


class FileState:
    """One JSON object in a file, owner-only, replaced whole.

    A new value is written aside, then the old file is removed and the new one renamed: at
    every moment one of the two is whole. A rename over the old one would have ext4 write
    the data out first.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._mutex = threading.Lock()
        self._entries = Entries(f"{path}.log")
        self._mark: Mark | None = None

    def load(self) -> dict[str, Any]:
        """Return what was saved last, else an empty object.

        Raises:
            OSError, ValueError: it is there and cannot be read.
        """
        with self._mutex:
            text = self._read()
            value: dict[str, Any] = json.loads(text) if text else {}
            self._mark = mark_of(text)
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
            self._mark = mark_of(self._read())
        return self._mark

    def _read(self) -> bytes:
        """Return the text of the object, empty if there is none."""
        try:
            with open(self._path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return self._read_aside()

    def _read_aside(self) -> bytes:
        try:
            with open(f"{self._path}.new", "rb") as file:
                text = file.read()
            json.loads(text)
        except (FileNotFoundError, ValueError):
            return b""  # not whole: the very first, and nothing had been saved before
        return text

    def save(self, value: Mapping[str, Any]) -> None:
        """Keep ``value`` in place of what was there.

        Raises:
            OSError: it could not be written; the old value stays.
        """
        text = json.dumps(dict(value), separators=(",", ":")).encode()
        with self._mutex:
            aside = f"{self._path}.new"
            with open(self._open(aside), "wb", buffering=0) as file:
                if file.write(text) != len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), aside)
            try:
                os.unlink(self._path)
            except FileNotFoundError:
                pass
            os.rename(aside, self._path)
            self._mark = mark_of(text)
            self._entries.end()

    @staticmethod
    def _open(path: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            return os.open(path, flags, 0o600)
