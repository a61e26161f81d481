"""The requests whose answer has a time limit, watched by the poll thread.

One timer for all of them: each has the same limit, so the oldest is due first.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from uvmd.host.bounded import Bounded
from uvmd.host.locks import REQUEST_LIMIT_S

if TYPE_CHECKING:
    from uvmd.bridge.call import Call
    from uvmd.bridge.facade import Timers


class Deadlines:
    """See the module. Poll thread only, but for :meth:`forget`.

    Args:
        late: called with a request whose time is up; its answer is the caller's from then on.
    """

    def __init__(
        self, timers: Timers, late: Callable[[Call], None], limit_s: float = REQUEST_LIMIT_S
    ) -> None:
        self._timers = timers
        self._late = late
        self._limit_s = limit_s
        # In the order in which they came. Adding and removing one is atomic.
        self._calls: dict[int, Call] = {}
        self._watching = False

    def watch(self, call: Call) -> None:
        """Have the request answered in time."""
        call.bounded = Bounded(self._limit_s)
        self._calls[id(call)] = call
        if not self._watching:
            self._look_later(self._limit_s)

    def forget(self, call: Call) -> None:
        """The request is answered. From any thread; fine for one that was not watched."""
        self._calls.pop(id(call), None)

    def _look_later(self, delay_s: float) -> None:
        self._watching = True
        self._timers.call_later(delay_s, self._look)

    def _look(self) -> None:
        self._watching = False
        now = monotonic()
        for call in list(self._calls.values()):
            bounded = call.bounded
            if bounded is None:
                continue
            if bounded.deadline > now:
                self._look_later(bounded.deadline - now)
                return
            if bounded.give_up():
                self._late(call)
