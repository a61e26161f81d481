"""Work that is done while the policy is asked, or after it, and fails after a yes alone."""

from __future__ import annotations

from collections.abc import Callable


class Meanwhile:
    """See the module. Used by one thread."""

    __slots__ = ("_error", "_work")

    def __init__(self, work: Callable[[], None] | None) -> None:
        self._work = work
        self._error: BaseException | None = None

    def __call__(self) -> None:
        """Do it, if it is not done; raises nothing."""
        work, self._work = self._work, None
        if work is not None:
            try:
                work()
            except BaseException as error:
                self._error = error

    def finish(self) -> None:
        """Have it done; raises what it has raised."""
        self()
        if self._error is not None:
            raise self._error
