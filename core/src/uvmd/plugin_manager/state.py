"""``env.state``: what a distribution keeps over a restart of the daemon."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from typing import Any


class FileState:
    """One JSON object in a file, owner-only, replaced whole."""

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
            return {}
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
            os.rename(aside, self._path)
