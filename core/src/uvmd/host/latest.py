"""A small file of which the last whole line counts: what is kept from change to change.

Keeping a new value is one write at the end of the file. What a dying daemon did not finish
is no whole line, so the one before still counts. When the lines have become many, the file
is replaced: written aside, the old one removed, the new one renamed. At every moment one
of the two is whole, and ext4, which writes out what is renamed over another file, has no
reason to.
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from typing import Final

from uvmd.linux.files import unlink_if_there, write_whole

_FEW_BYTES: Final = 64 << 10
_FEW_LINES: Final = 8


class Latest:
    """The file at ``path``, owner-only. The caller serialises."""

    def __init__(self, path: str) -> None:
        self._path = path
        #: Of the file, once it is ours: what an earlier daemon did not finish must not become
        #: the beginning of a line.
        self._fd = -1

    def __del__(self) -> None:
        self._close()

    def read(self) -> bytes | None:
        """Return the line that counts, without its end; None when nothing was ever kept.

        Raises OSError.
        """
        try:
            with open(self._path, "rb") as file:
                return _last(file.read())
        except FileNotFoundError:
            return self._read_aside()

    def _read_aside(self) -> bytes | None:
        try:
            with open(f"{self._path}.new", "rb") as file:
                text = _last(file.read())
            json.loads(text)
        except (FileNotFoundError, ValueError):
            return None  # not whole: the very first, and nothing had been kept before
        return text

    def keep(self, line: bytes) -> None:
        """Have ``line`` count from now on. It is JSON, and has no end of line within.

        Raises:
            OSError: it could not be written; what counted before still does.
        """
        line += b"\n"
        if not (self._fd >= 0 and self._added(line)):
            self._replace(line)

    def _added(self, line: bytes) -> bool:
        """Add the line; False when the file is gone, or has become long."""
        about = os.fstat(self._fd)
        if about.st_nlink == 0 or about.st_size > max(_FEW_BYTES, _FEW_LINES * len(line)):
            return False
        if os.write(self._fd, line) != len(line):
            os.ftruncate(self._fd, about.st_size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
        return True

    def _replace(self, line: bytes) -> None:
        aside = f"{self._path}.new"
        try:
            write_whole(aside, line)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(aside), mode=0o700, exist_ok=True)
            write_whole(aside, line)
        self._close()  # whatever fails now, the next value is written whole
        unlink_if_there(self._path)
        os.rename(aside, self._path)
        with suppress(OSError):  # it is kept; without a descriptor the next one is written whole too
            self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _last(text: bytes) -> bytes:
    """The last whole line; releases before lines wrote one value, and no end."""
    lines = text.rsplit(b"\n", 2)
    return lines[-2] if len(lines) > 1 else text
