"""A request that must be answered in time, though nobody can stop what serves it.

A mount can hang in the kernel for ever. Whoever watches the time then gives up and answers
with an error; the thread that serves the request is told when it comes back, at the moment
where it would make its outcome final, so that an outcome and its answer never part ways.
"""

from __future__ import annotations

import threading
import time


class Bounded:
    """The time of one request.

    Args:
        limit_s: how long it may take, from now on.
    """

    __slots__ = ("_given_up", "_mutex", "_settled", "deadline", "what")

    def __init__(self, limit_s: float) -> None:
        #: On the monotonic clock.
        self.deadline = time.monotonic() + limit_s
        #: For the error of a request that is late; whoever serves it knows best.
        self.what = "the request"
        self._mutex = threading.Lock()
        self._settled = False
        self._given_up = False

    @property
    def given_up(self) -> bool:
        """Whether somebody else answers, or has answered."""
        return self._given_up

    def settle(self) -> bool:
        """Have the thread that serves the request answer it; False when it is too late for that.

        To be called before an outcome is made final, which must then be near.
        """
        with self._mutex:
            self._settled = not self._given_up
            return self._settled

    def give_up(self) -> bool:
        """Have the caller answer the request; False when it is settled, or given up already."""
        with self._mutex:
            if self._settled or self._given_up:
                return False
            self._given_up = True
            return True
