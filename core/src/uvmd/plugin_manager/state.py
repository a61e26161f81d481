"""``env.state``: what a distribution keeps over a restart of the daemon."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from typing import Any


class FileState:
    """One JSON object in a file, owner-only, replaced whole.

    A new value is written aside, then the old file is removed and the new one renamed: at
    every moment one of the two is whole. A rename over the old one would have ext4 write
    the data out first.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._mutex = threading.Lock()

    def load(self) -> dict[str, Any]:
        """Return what was saved last, else an empty object.

        Raises:
            OSError, ValueError: it is there and cannot be read.
        """
        try:
            with open(self._path, "rb") as file:
                value: dict[str, Any] = json.load(file)
        except FileNotFoundError:
            return self._load_aside()
        return value

    def _load_aside(self) -> dict[str, Any]:
        try:
            with open(f"{self._path}.new", "rb") as file:
                value: dict[str, Any] = json.load(file)
        except (FileNotFoundError, ValueError):
            return {}  # not whole: the very first, and nothing had been saved before
        return value

    def save(self, value: Mapping[str, Any]) -> None:
        """Keep ``value`` in place of what was there.

        Raises:
            OSError: it could not be written; the old value stays.
        """
        text = json.dumps(dict(value), separators=(",", ":")).encode()
        with self._mutex:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            aside = f"{self._path}.new"
            fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(text)
            try:
                os.unlink(self._path)
            except FileNotFoundError:
                pass
            os.rename(aside, self._path)
