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
from typing import Final

from uvmd.linux.files import unlink_if_there, write_whole

_FEW_BYTES: Final = 64 << 10
_FEW_LINES: Final = 8


class Latest:
    """The file at ``path``, owner-only. The caller serialises."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._ours = False
        # Stays open, and is the path's as long as it has a name.
        self._fd = -1

    def __del__(self) -> None:
        self._close()

    def read(self) -> bytes | None:
        """Return the line that counts, without its end; None when nothing was ever kept.

        Raises OSError.
        """
        try:
            return self._read()
        except FileNotFoundError:
            return self._read() if self._put_in_place() else None

    def _read(self) -> bytes:
        with open(self._path, "rb") as file:
            return _last(file.read())

    def _put_in_place(self) -> bool:
        """Finish what a daemon died in the middle of; tell whether there was something.

        What is aside would be written over by the next value, and may be all there is.
        """
        aside = f"{self._path}.new"
        try:
            with open(aside, "rb") as file:
                json.loads(_last(file.read()))
        except (FileNotFoundError, ValueError):
            return False  # not whole: the very first, and nothing had been kept before
        os.rename(aside, self._path)
        return True

    def keep(self, line: bytes) -> None:
        """Have ``line`` count from now on. It is JSON, and has no end of line within.

        Raises:
            OSError: it could not be written; what counted before still does.
        """
        line += b"\n"
        # What an earlier daemon did not finish must not become the beginning of a line.
        if not (self._ours and self._added(line)):
            if not os.path.exists(self._path):
                self._put_in_place()
            self._replace(line)
            self._ours = True

    def _added(self, line: bytes) -> bool:
        """Add the line; False when the file is gone, or has become long."""
        if self._fd < 0:
            try:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
        held = os.fstat(self._fd)
        if not held.st_nlink or held.st_size > max(_FEW_BYTES, _FEW_LINES * len(line)):
            return False
        if os.write(self._fd, line) != len(line):
            os.ftruncate(self._fd, held.st_size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
        return True

    def _replace(self, line: bytes) -> None:
        aside = f"{self._path}.new"
        try:
            write_whole(aside, line)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(aside), mode=0o700, exist_ok=True)
            write_whole(aside, line)
        unlink_if_there(self._path)
        os.rename(aside, self._path)
        self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _last(text: bytes) -> bytes:
    """The last whole line; releases before lines wrote one value, and no end."""
    lines = text.rsplit(b"\n", 2)
    return lines[-2] if len(lines) > 1 else text
