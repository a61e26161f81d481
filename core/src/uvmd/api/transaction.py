"""A change happens whole or not at all: the undo stack of one request.

After each step that changed the system its opposite is registered; when the request
fails the opposites run, last first. There is deliberately no ``enter_context``: a
generator-based manager that is dropped cleans up when it is collected, which would undo
a success.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class RollbackFailed(Exception):
    """One or more undo steps failed. ``failures`` holds (step, error) pairs, in order."""

    def __init__(self, failures: list[tuple[str, BaseException]]) -> None:
        self.failures = failures
        super().__init__("; ".join(f"{step}: {error}" for step, error in failures))


class Undo:
    """The opposites of the steps done so far."""

    __slots__ = ("_irreversible", "_report", "_steps")

    def __init__(self, report: Callable[[str], None] | None = None) -> None:
        self._steps: list[tuple[str, Callable[..., object], tuple[Any, ...]]] = []
        self._irreversible: str | None = None
        self._report = report

    def callback(self, function: Callable[..., object], *args: Any, step: str = "") -> None:
        """Register the opposite of the step that was just done."""
        self._steps.append((step or getattr(function, "__qualname__", "step"), function, args))

    def point_of_no_return(self, step: str) -> None:
        """Say that the step now to be taken has no opposite (an unmount, say).

        An exception after it leaves the guest changed, which counts as a failed rollback.
        """
        self._irreversible = step

    @property
    def irreversible(self) -> str | None:
        """The step without an opposite that was announced last, if any."""
        return self._irreversible

    def close(self) -> None:
        """Run the opposites, last first, every one of them.

        Raises:
            RollbackFailed: a step failed, or a point of no return had been passed.
        """
        failures: list[tuple[str, BaseException]] = []
        while self._steps:
            step, function, args = self._steps.pop()
            try:
                function(*args)
            except Exception as error:
                failures.append((step, error))
        if self._irreversible is not None:
            failures.append((self._irreversible, RuntimeError("cannot be undone")))
        if failures:
            raise RollbackFailed(failures)

    def report_failed_rollback(self, failure: BaseException) -> None:
        """Tell the VM's owner that the guest is not as before."""
        if self._report is not None:
            self._report(str(failure))


@contextmanager
def transaction(report: Callable[[str], None] | None = None) -> Iterator[Undo]:
    """Give an :class:`Undo` that runs when, and only when, the body raises.

    The original error is raised in every case; a failed rollback goes to ``report``,
    which marks a strict VM inconsistent and any other one degraded.
    """
    undo = Undo(report)
    try:
        yield undo
    except BaseException:
        try:
            undo.close()
        except Exception as failure:
            undo.report_failed_rollback(failure)
        raise
