"""One line on a terminal that says how far the work is; silence everywhere else."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from uvmd.cli.ctl.tables import size

#: Between two paintings; a faster line cannot be read.
_INTERVAL_S = 0.1
_WORDS = {
    "unpack": "unpacking",
    "hash": "hashing",
    "write": "writing",
    "verify": "verifying",
}


class ProgressLine:
    """Called by the work with (step, bytes done, bytes in all); paints over itself.

    Only a terminal sees it: a log would keep every painting.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.prefix = ""
        self._on = not quiet and sys.stderr.isatty()
        self._painted_at = 0.0
        self._width = 0

    def __call__(self, step: str, done: int, total: int) -> None:
        now = time.monotonic()
        if not self._on or not total or (done < total and now - self._painted_at < _INTERVAL_S):
            return
        self._painted_at = now
        self._paint(f"{self.prefix}{describe(step, done, total)}")

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._width:
            self._paint("")
            sys.stderr.write("\r")
            sys.stderr.flush()

    def _paint(self, text: str) -> None:
        sys.stderr.write(f"\r{text.ljust(self._width)}")
        sys.stderr.flush()
        self._width = len(text)


def describe(step: str, done: int, total: int) -> str:
    """Return one painting: ``hashing  45% of 1.2 GiB``."""
    return f"{_WORDS.get(step, step)} {100 * done // total:3d}% of {size(total)}"
