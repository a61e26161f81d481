"""Who reads what the monitor sends: one thread always, and one beside it that also serves.

The thread that calls ``poll`` in a loop has the *turn* but for the time in which it waits:
whoever has it receives and dispatches, so that everything is told in its order and by one
thread at a time. A second thread may wait beside it. Both wait for the socket exclusively,
the second one first in line: it gets what comes while it waits, and what comes while it
does something else goes to the first. What it reads it can so begin to serve at once,
without another thread that would have to be woken for it (docs/decisions/0023). Elsewhere
*the poll thread* is whoever has the turn.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from uvmd.monitor.conversation import Conversation
from uvmd.monitor.reports import Events

Told = Callable[[Events, list[Any]], None]
#: Of packets, and then the turn is somebody else's.
_AT_ONCE: Final = 64
_NOBODY: Final = 0


class Polling:
    """See the module. The thread that makes it has the turn."""

    def __init__(self, sock: socket.socket, talk: Conversation) -> None:
        self._sock = sock
        self._talk = talk
        self._pending: deque[tuple[Told, list[Any]]] = deque()
        self._turn = threading.Lock()
        self._turn.acquire()
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._second, self._first = select.epoll(), select.epoll()
        for poller in (self._second, self._first):  # in line, in this order
            poller.register(sock.fileno(), select.EPOLLIN | select.EPOLLEXCLUSIVE)
        self._first.register(self._wakeup, select.EPOLLIN)
        self._beside = False
        #: What a dispatch beside has raised: nobody has served that event.
        self._failure: BaseException | None = None

    def heard(self, told: Told, fields: list[Any]) -> None:
        """Have an event dispatched by whoever has the turn, once everybody's answers are handed out."""
        self._pending.append((told, fields))

    def poll(self, timeout_s: float | None, events: Events | None) -> bool:
        """Receive and dispatch what comes next, waiting at most so long; True if something came.

        Raises:
            MonitorError: the monitor is gone.
            whatever a dispatch raises, one of the second thread's too.
        """
        self._talk.receiver = threading.get_ident()
        if self._pending and events is not None:
            self._dispatch(events)
            return True
        came, ready = False, self._wait(timeout_s)
        if self._failure is not None:
            raise self._failure
        for fd, _ in ready:
            if fd == self._wakeup:
                os.eventfd_read(self._wakeup)
                self._receive_all()
                came = True
            elif self._talk.receive():
                came = True
        if self._pending and events is not None:
            self._dispatch(events)
        return came

    def _wait(self, timeout_s: float | None) -> list[tuple[int, int]]:
        self._turn.release()
        try:
            return self._first.poll(timeout_s)
        finally:
            self._turn.acquire()
            self._talk.receiver = threading.get_ident()

    def wake(self) -> None:
        """Make ``poll`` return. From any thread."""
        os.eventfd_write(self._wakeup, 1)

    def poll_beside(self, events: Events) -> None:
        """Wait as the second thread; receive and dispatch what is there, in a turn.

        Raises:
            MonitorError: the monitor is gone.
        """
        self._beside = True
        self._second.poll()
        with self._turn:
            self._talk.receiver = threading.get_ident()
            try:
                self._receive_all()
                self._dispatch(events)
            except BaseException as error:
                self._failure = error
                with suppress(OSError):  # closed
                    self.wake()
                raise
            finally:
                self._talk.receiver = _NOBODY

    def _receive_all(self) -> None:
        """Receive to the last one: who waits exclusively alone was told of what came before it."""
        for _ in range(_AT_ONCE):
            if not self._talk.receive():
                return
        self.wake()

    def end_beside(self) -> None:
        """The second thread, which there is no monitor for any more, lets go."""
        self._second.close()
        self._sock.close()

    def close(self) -> None:
        """Fail all calls, and let go of everything. By the thread that has the turn, or after its end."""
        self._talk.lose("closed")
        self._first.close()
        os.close(self._wakeup)
        if self._beside:  # the second thread is woken, and closes what it waits for
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
        else:
            self.end_beside()
        self._turn.release()

    def _dispatch(self, events: Events) -> None:
        while self._pending:
            told, fields = self._pending.popleft()
            told(events, fields)
