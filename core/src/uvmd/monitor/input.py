"""The relay of standard input: a host connection to a pipe or pty master.

End of file closes the pipe's write end; a terminal is not hung up by it (spec
containers.md 10.3, 10.4).
"""

from __future__ import annotations

import _socket
import errno
import os

from uvmd.monitor.loop import EDGE, IN, OUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from uvmd.monitor.tools import Tools

_BURST = 16
_CHUNK_BYTES = 65_536
# What a process that does not read makes us hold, where splicing is impossible.
_COPY_BYTES = 16_384
_SPLICE = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE


class Input:
    """One stream from the host until its end of file, the process's end, or an error."""

    __slots__ = ("_connection", "_copying", "_pending", "_target", "_terminal", "_tools")

    def __init__(
        self, tools: Tools, connection: _socket.socket | None, target: int, *, terminal: bool
    ) -> None:
        self._tools = tools
        self._connection = connection
        self._target = target
        self._terminal = terminal
        self._copying = terminal
        self._pending: memoryview | None = None

    def start(self) -> None:
        """Begin to relay; without a connection the process sees end of file at once."""
        if self._connection is None:
            self._close_target()
            return
        loop = self._tools.loop
        loop.watch(self._connection.fileno(), IN | EDGE, self.advance)
        if not self._terminal:
            loop.watch(self._target, OUT | EDGE, self.advance)
        loop.soon(self.advance)

    def advance(self, _events: int = 0) -> None:
        """Move what can be moved."""
        if self._target < 0 or self._connection is None:
            return
        try:
            for _ in range(_BURST):
                if not self._move(self._connection):
                    self._close_target()
                    return
        except BlockingIOError:
            return
        except OSError as error:
            # The process closed its input, or the host vanished: either ends the copy.
            self._tools.log.debug("standard input has ended", error=str(error.strerror))
            self._close_target()
            return
        self._tools.loop.soon(self.advance)

    def stop(self) -> None:
        """The process is gone: read no more, but keep the connection (see ``close``).

        The host closes its side only once it has seen the exit.
        """
        self._close_target()
        if self._connection is not None:
            self._tools.loop.unwatch(self._connection.fileno())
            try:
                self._connection.shutdown(_socket.SHUT_RD)
            except OSError as error:
                if error.errno != errno.ENOTCONN:
                    self._tools.log.debug(
                        "shutdown of standard input failed, ignoring", error=str(error.strerror)
                    )

    def close(self) -> None:
        """Close the connection too."""
        self._close_target()
        connection, self._connection = self._connection, None
        if connection is not None:
            self._tools.loop.unwatch(connection.fileno())
            connection.close()

    def _move(self, connection: _socket.socket) -> int:
        if self._pending is not None:
            count = os.write(self._target, self._pending)
            self._pending = self._pending[count:] if count < len(self._pending) else None
            return 1
        if not self._copying:
            try:
                return os.splice(connection.fileno(), self._target, _CHUNK_BYTES, flags=_SPLICE)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._copying = True
        data = connection.recv(_COPY_BYTES)
        if data:
            self._pending = memoryview(data)
        return len(data)

    def _close_target(self) -> None:
        if self._target >= 0 and not self._terminal:
            self._tools.loop.unwatch(self._target)
            os.close(self._target)
        self._target = -1
        self._pending = None
