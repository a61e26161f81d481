"""``env.dial``: a connection to a port of the host, made by the monitor."""

from __future__ import annotations

import errno
import time
from typing import Protocol


class DialingLink(Protocol):
    """The part of the monitor's link that is needed here."""

    def dial(self, port: int, deadline_s: float) -> int:
        """Connect within so many seconds; raise OSError otherwise."""


class Dialer:
    """Implements ``api.Dial``: deadlines on the monotonic clock, descriptors for the caller."""

    def __init__(self, link: DialingLink) -> None:
        self._link = link

    def __call__(self, port: int, deadline: float) -> int:
        """Return a blocking, close-on-exec descriptor; the caller closes it.

        Raises:
            OSError: no connection until ``deadline`` (monotonic clock).
        """
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise OSError(errno.ETIMEDOUT, f"dial host port {port}: the deadline has passed")
        return self._link.dial(port, left_s)
