"""The service manager (sd_notify(3)): told that we are ready, that we live, that we stop.

Of both processes; the daemon uses it too. Silent where there is no manager.
"""

from __future__ import annotations

import _socket
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_US = 1_000_000
#: Sooner than the manager asks for: a process that is late once is not dead.
_PINGS_A_PERIOD = 3


def notify(state: str) -> None:
    """Send ``READY=1`` and the like. A manager that does not listen is no reason to fail."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    # An abstract name is written with @ and sent with a zero byte.
    target = "\0" + address[1:] if address.startswith("@") else address
    try:
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        try:
            sock.connect(target)
            sock.send(state.encode(), _socket.MSG_DONTWAIT)
        finally:
            sock.close()
    except OSError:
        return


def ping_period_s(environment: Mapping[str, str]) -> float | None:
    """Return how often the manager wants to hear of this very process; None: never.

    A process that the manager has not started itself finds the variables of its parent.
    """
    period = environment.get("WATCHDOG_USEC", "")
    if not period.isdigit() or not int(period):
        return None
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(period) / _US / _PINGS_A_PERIOD


def keep_pinging(call_later: Callable[[float, Callable[[], None]], object]) -> None:
    """Tell the manager that we live, as often as it wants, by timers of the loop that serves.

    A loop that hangs, or a process that is stopped, so is found and replaced.
    """
    period_s = ping_period_s(os.environ)
    if period_s is None:
        return

    def ping() -> None:
        notify("WATCHDOG=1")
        call_later(period_s, ping)

    ping()
