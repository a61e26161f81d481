"""Work that must be answered in time, though nobody can stop it.

A mount can hang in the kernel for ever. The one who waits goes away at the deadline with
an error; the work is told when it comes back, at the moment where it would make its
outcome final, so that an outcome and its answer never part ways.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic_ns
from typing import Protocol

from uvmd.errors import DeadlineExceeded
from uvmd.host.doing import doing, working_for
from uvmd.observe.steps import follow, followed

log = logging.getLogger(__name__)


class Submit(Protocol):
    """Have a function called on another thread."""

    def __call__(self, function: Callable[[], None], /) -> object: ...


class Bounded:
    """One piece of work. ``work`` gets a function to call before it makes its outcome final.

    That function returns False when nobody waits any more; else the waiter now waits to
    the end, which must be near.
    """

    def __init__(self, work: Callable[[Callable[[], bool]], None], what: str) -> None:
        self._work = work
        self._what = what
        self._doing = doing()
        self._trace = followed()
        self._queued_ns = monotonic_ns()
        self._mutex = threading.Lock()
        self._finished = threading.Event()
        self._abandoned = False
        self._settled = False
        self._error: BaseException | None = None

    def run(self) -> None:
        """Do the work, on whatever thread; not at all when nobody waits any more."""
        if self._abandoned:
            return
        if self._trace is not None:
            self._trace.note("queue", self._queued_ns)
        before = followed()
        follow(self._trace)
        try:
            with working_for(self._doing):
                self._work(self._settle)
        except BaseException as error:
            self._error = error
            if self._abandoned:
                log.warning(
                    "a request failed after it had been answered, ignoring",
                    extra={"request": self._what, "error": str(error)},
                )
        finally:
            follow(before)
            self._finished.set()

    def wait(self, timeout_s: float) -> None:
        """Wait for the end and raise what the work raised.

        Raises:
            DeadlineExceeded: the time is up and the outcome was not final.
        """
        if not self._finished.wait(timeout_s):
            with self._mutex:
                self._abandoned = not self._settled
            if self._abandoned:
                raise DeadlineExceeded(f"{self._what}: not done in time; what it has locked stays locked")
            self._finished.wait()
        if self._error is not None:
            raise self._error

    def _settle(self) -> bool:
        with self._mutex:
            self._settled = not self._abandoned
            return self._settled
