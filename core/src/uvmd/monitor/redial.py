"""An output whose host has vanished: dial again, and say what to send again.

The loop is bounded (spec containers.md 16.18): it ends when it is stopped, when the slot
is released, and when the process is gone and the port has refused for ten seconds.
"""

from __future__ import annotations

from uvmd.monitor.dial import RETRY_S, Dial
from uvmd.monitor.history import History

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable

    from uvmd.monitor.dial import Target
    from uvmd.monitor.loop import Timer
    from uvmd.monitor.tools import Tools

REFUSED_S = 10.0

_DEADLINE_S = 3.0

__all__ = ["REFUSED_S", "RETRY_S", "Redial"]


class Redial:
    """Keeps the history of one stream; ``active`` from ``begin`` until the host is back."""

    __slots__ = (
        "_dial", "_given_up", "_host_is_back", "_lost_at", "_name", "_target", "_timer", "_tools",
        "active", "gone_at", "history",
    )  # fmt: skip

    def __init__(
        self,
        tools: Tools,
        name: str,
        target: Target,
        host_is_back: Callable[[_socket.socket, bytes], None],
        given_up: Callable[[str], None],
    ) -> None:
        self._tools = tools
        self._name = name
        self._target = target
        self._host_is_back = host_is_back
        self._given_up = given_up
        self._dial: Dial | None = None
        self._timer: Timer | None = None
        self._lost_at = 0.0
        self.history = History()
        self.active = False
        self.gone_at: float | None = None

    def begin(self) -> None:
        """The connection is lost: dial the same port every 100 ms."""
        self._tools.log.info("the host is gone, re-dialling", stream=self._name)
        self.active = True
        self._lost_at = self._tools.loop.now()
        self._timer = self._tools.loop.call_later(RETRY_S, self._try)

    def close(self) -> None:
        """Stop, and give the history's memory back."""
        if self._timer is not None:
            self._timer.cancel()
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        self.history.close()

    def _try(self) -> None:
        self._dial = Dial(
            self._tools.loop, self._target, self._connected, self._refused, deadline_s=_DEADLINE_S, attempts=1
        )

    def _connected(self, connection: _socket.socket) -> None:
        self._dial = None
        self.active = False
        replay = self.history.read()
        self._tools.log.info("the host is back", stream=self._name, bytes_sent_again=len(replay))
        self._host_is_back(connection, replay)

    def _refused(self, error: OSError) -> None:
        self._dial = None
        if self.gone_at is not None:
            refused_s = self._tools.loop.now() - max(self.gone_at, self._lost_at)
            if refused_s >= REFUSED_S:
                self._given_up(str(error.strerror))
                return
        self._timer = self._tools.loop.call_later(RETRY_S, self._try)
