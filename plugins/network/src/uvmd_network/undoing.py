"""An undo inside of an undo: what must be taken back under a lock, before the request's own undo runs.

When it fails the request's error stays what it is; that the VM is not as before is told
by the request's undo, as a step that fails with the words of what failed.
"""

from __future__ import annotations

from collections.abc import Callable

from uvmd.api import Undo
from uvmd.errors import Failed


def report_to(undo: Undo) -> Callable[[str], None]:
    """Return what tells a request's undo of a failure."""

    def report(failure: str) -> None:
        def step() -> None:
            raise Failed(failure)

        undo.callback(step, step="inner undo")

    return report


def unwind(undo: Undo, *steps: Callable[[], object]) -> None:
    """Take every one of the steps; what fails is told to a request's undo."""
    for step in steps:
        try:
            step()
        except Exception as failure:
            report_to(undo)(str(failure))
