"""How far the work is: bytes of a step, told in strides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: Called with (step, bytes done, bytes in all); the last call of a step has both equal.
Progress = Callable[[str, int, int], None]
_STRIDE_BYTES: Final = 8 << 20


def silent(step: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


class Meter:
    """Adds up bytes; passes them on in strides, because a call for every small file would cost."""

    def __init__(self, step: str, total: int, progress: Progress) -> None:
        self.total = total
        self._step, self._progress = step, progress
        self._done = self._told = 0

    def advance(self, count: int) -> None:
        """Count bytes that are done."""
        self._done += count
        if self._done - self._told >= _STRIDE_BYTES:
            self._told = self._done
            self._progress(self._step, min(self._done, self.total), self.total)

    def end(self) -> None:
        """Say that the step is done."""
        self._progress(self._step, self.total, self.total)
