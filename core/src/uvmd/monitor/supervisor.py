"""The daemon as the monitor's child: start it, notice its end, start it again.

A daemon that ends before any daemon ever said HELLO has refused to start (a bad flag,
a bad configuration): the monitor ends with its status. Later ends are accidents.
"""

from __future__ import annotations

import _socket
import os

from uvmd.monitor.channel import Channel
from uvmd.monitor.loop import Loop
from uvmd.monitor.spawn import Spawner

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Sequence
    from typing import Any

    from uvmd.monitor.children import Children
    from uvmd.monitor.log import Log
else:
    import _signal as signal

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0

_REFUSAL_S = 2.0

# A daemon that lived this long after HELLO, or has answered the host, did not die of its
# start; the delay begins anew.
_SETTLED_S = 0.3


class Supervisor:
    """Keeps one daemon running. ``on_ended(status)``: it has refused to start, there will be no other."""

    def __init__(
        self,
        loop: Loop,
        log: Log,
        spawner: Spawner,
        children: Children,
        argv: Sequence[bytes],
        *,
        on_packet: Callable[[Channel, int, int, list[Any], list[int]], None],
        on_lost: Callable[[], None],
        on_room: Callable[[], None],
        on_ended: Callable[[int], None],
    ) -> None:
        self._loop = loop
        self._log = log
        self._spawner = spawner
        self._children = children
        self._argv = argv
        self._on_packet = on_packet
        self._on_lost = on_lost
        self._on_room = on_room
        self._on_ended = on_ended
        self._delay_s = FIRST_DELAY_S
        self._greeted_at: float | None = None
        #: Whether this daemon has answered a request of the host.
        self.served = False
        self.starts = 0
        self.ever_greeted = False
        self.restart = True
        self.channel: Channel | None = None

    @property
    def alive(self) -> bool:
        """True while the daemon's process is there."""
        return self._children.daemon_pid != 0

    def start(self) -> None:
        """Start the daemon with its end of a new link as descriptor 3."""
        if not self.alive and self.restart:
            self.starts += 1
            self._spawn(self._argv, dict(os.environb))

    def start_last(self, how: tuple[Sequence[bytes], Sequence[bytes]] | None) -> bool:
        """Start one that takes everything down; False: there will be none."""
        return False

    def _spawn(self, argv: Sequence[bytes], env: dict[bytes, bytes]) -> None:
        try:
            ours, theirs = _socket_pair()
        except OSError as error:  # all descriptors are in use: containers that end give some back
            self._not_started(error)
            return
        env[b"UVMD_MONITOR_FD"] = b"3"
        null = self._spawner.devnull
        try:
            # Its stdout is our stderr: a stray print must not end up in a bridge on stdio.
            pid = self._spawner.spawn(argv, env, (null, 2, 2), [theirs.fileno()], protected=True)
        except OSError as error:
            ours.close()
            self._not_started(error)
            return
        finally:
            theirs.close()
        self._children.daemon_pid = pid
        self._converse(ours)
        self._log.info("daemon started", pid=pid, starts=self.starts)

    def _not_started(self, error: OSError) -> None:
        self._log.error("cannot start the daemon", error=str(error))
        self.exited(127)

    def _converse(self, sock: _socket.socket) -> None:
        """Talk to a new daemon."""
        self.channel = Channel(self._loop, sock, self._packet, self._lost, self._on_room)

    def exited(self, status: int) -> None:
        """The daemon's process is gone."""
        self._drop_channel()
        if not self.ever_greeted:
            self._log.error("the daemon has refused to start", status=status)
            self._on_ended(status if status >= 0 else 128 - status)
            return
        self._log.error("the daemon has ended", status=status)
        self._start_after_a_pause()

    def _start_after_a_pause(self) -> None:
        """Call ``start``, later each time while daemons die of their start."""
        lived_s = 0.0 if self._greeted_at is None else self._loop.now() - self._greeted_at
        if self.served or lived_s >= _SETTLED_S:
            self._delay_s = FIRST_DELAY_S
        self._greeted_at = None
        self.served = False
        self._loop.call_later(self._delay_s, self.start)
        self._delay_s = min(2 * self._delay_s, LONGEST_DELAY_S)

    def greeted(self) -> None:
        """The daemon has said HELLO."""
        self.ever_greeted = True
        if self._greeted_at is None:
            self._greeted_at = self._loop.now()

    def kill(self) -> None:
        """Kill the daemon, not what it has started."""
        if self._children.daemon_pid:
            os.kill(self._children.daemon_pid, signal.SIGKILL)

    def _packet(self, op: int, tag: int, fields: list[Any], fds: list[int]) -> None:
        assert self.channel is not None
        self._on_packet(self.channel, op, tag, fields, fds)

    def _lost(self, reason: str) -> None:
        # Without its link it is of no use, whether it knows or not.
        (self._log.error if self.restart else self._log.info)("the link has ended", reason=reason)
        self.channel = None
        if self.ever_greeted:
            self.kill()
        else:
            # It refuses to start, and its status says why: let it come to its end.
            self._loop.call_later(_REFUSAL_S, self.kill)
        self._on_lost()

    def _drop_channel(self) -> None:
        channel, self.channel = self.channel, None
        if channel is not None:
            channel.close()
            self._on_lost()


def _socket_pair() -> tuple[_socket.socket, _socket.socket]:
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0)
    for sock in (ours, theirs):
        os.set_inheritable(sock.fileno(), False)
    return ours, theirs
