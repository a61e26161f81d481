"""The log beside a distribution's state: one JSON object a line, for changes that come often.

Its first line says which object it belongs to. So a log that an object saved later has
left behind, because the daemon died before it could be removed, is nobody's.
"""

from __future__ import annotations

import binascii
import errno
import json
import os
from collections.abc import Mapping
from typing import Any

from uvmd.codec import compact
from uvmd.linux.files import unlink_if_there

Mark = dict[str, int]
_encode = compact.encoder()


class Entries:
    """The entries that were added since the object was saved. The caller serialises."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._ended = False

    def append(self, entry: Mapping[str, Any], owner: Mark) -> None:
        """Add an entry to the log of the object that ``owner`` marks.

        Raises:
            OSError: it could not be written; the log is as before.
        """
        if self._fd < 0:
            self._open(owner)
        self._write(_line(entry))

    def read(self, owner: Mark) -> list[dict[str, Any]]:
        """Return the entries of this object; what a dying daemon did not finish is none.

        Raises:
            OSError: it is there and cannot be read.
            ValueError: a whole line is no entry.
        """
        try:
            with open(self._path, "rb") as file:
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return []
        lines.pop()  # what follows the last newline is not whole
        if not lines or lines[0] + b"\n" != _line(owner):
            return []
        return [json.loads(line) for line in lines[1:]]

    def end(self) -> None:
        """Forget all entries."""
        if self._ended:
            return
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        unlink_if_there(self._path)
        self._ended = True

    def _open(self, owner: Mark) -> None:
        kept, self._ended = self.read(owner), False
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC | os.O_CLOEXEC
        aside = f"{self._path}.new"
        self._fd = os.open(aside, flags, 0o600)
        try:
            self._write(b"".join(map(_line, (owner, *kept))))
            os.rename(aside, self._path)
        except OSError:
            os.close(self._fd)
            self._fd = -1
            raise

    def _write(self, line: bytes) -> None:
        if (written := os.write(self._fd, line)) != len(line):
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)


def mark_of(text: bytes) -> Mark:
    """Return what tells an object's text from that of another."""
    return {"of": binascii.crc32(text), "bytes": len(text)}


def _line(entry: Mapping[str, Any]) -> bytes:
    return _encode(entry).encode() + b"\n"
