"""The relay of one output: a pipe or pty master to a host connection.

Everything is edge-triggered: whatever becomes ready, ``advance`` goes on until the
kernel says EAGAIN. A plain stream is spliced and never enters our memory; a terminal, a
tee file or a kernel that cannot splice takes the way through one shared buffer.

Spec: containers.md 10.3 to 10.6, 16.17 and 16.18.
"""

from __future__ import annotations

import _socket
import errno
import os
import select

from uvmd.monitor.loop import EDGE, IN, NO_MEMORY, OUT
from uvmd.monitor.redial import RETRY_S, Redial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from uvmd.monitor.dial import Target
    from uvmd.monitor.history import History
    from uvmd.monitor.tools import Tools

_BURST = 8
_CHUNK_BYTES = 1 << 20
# A stream that has moved this much is worth a larger pipe.
_BUSY_BYTES = 1 << 20
# A stream that was moved so short a time ago is in full flow.
_FAST_S = 0.001
_SPLICE = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
_VANISHED = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)


class Output:
    """One stream from its first byte until the host has closed its side.

    Without a connection the output goes to the tee file, or nowhere: it is read all the
    same, so that a container never blocks on a stream that nobody wants.
    """

    __slots__ = (
        "_closing", "_connection", "_copying", "_half_close", "_large", "_last_moved", "_name",
        "_on_done", "_own_source", "_pending", "_redial", "_replay", "_source", "_tee", "_tools",
        "_until_busy", "done",
    )  # fmt: skip

    def __init__(
        self,
        tools: Tools,
        name: str,
        source: int,
        connection: _socket.socket | None,
        on_done: Callable[[], None],
        *,
        terminal: bool = False,
        tee: int = -1,
        redial: Target | None = None,
    ) -> None:
        self._tools = tools
        self._name = name
        self._source = source
        self._connection = connection
        self._on_done = on_done
        self._own_source = not terminal
        self._half_close = not terminal
        self._tee = tee
        self._redial: Redial | None = None
        if redial is not None:
            self._redial = Redial(tools, name, redial, self._host_is_back, self._give_up)
        self._copying = terminal or tee >= 0 or connection is None
        self._pending: memoryview | None = None
        self._replay: memoryview | None = None
        self._closing = False
        self._until_busy = _BUSY_BYTES
        self._large = False
        self._last_moved = tools.loop.now()
        self.done = False

    @property
    def wanted(self) -> bool:
        """True if someone is to get this output: an exit is then not reported before its end."""
        return self._connection is not None or self._tee >= 0 or self._redialling

    @property
    def _redialling(self) -> bool:
        return self._redial is not None and self._redial.active

    def start(self) -> None:
        """Begin to relay. A terminal's master is watched by whoever shares it."""
        if self._own_source:
            self._tools.loop.watch(self._source, IN | EDGE, self.advance)
        self._watch_connection()
        self._tools.loop.soon(self.advance)

    def advance(self, _events: int = 0) -> None:
        """Move what can be moved."""
        if self.done or self._redialling:
            return
        if self._closing:
            self._await_host()
            return
        if self._tools.loop.now() - self._last_moved < _FAST_S:
            # Let the writer fill the pipe: one large splice costs less than ten small ones
            # (measured with writes of 4 KiB: half the time, a fifth of our CPU).
            os.sched_yield()
        try:
            for _ in range(_BURST):
                if not self._move():
                    self._end()
                    return
                if self._redialling:
                    return
        except BlockingIOError:
            return
        except Exception as error:
            # Whatever it is: an exit whose stream never ends would never be reported.
            self._tools.log.error("an output has failed, closing it", stream=self._name, error=str(error))
            self._finish()
            return
        self._tools.loop.soon(self.advance)

    def process_gone(self, now: float) -> None:
        """The process itself has exited; from now on waiting for others is bounded."""
        if self._redial is not None:
            self._redial.gone_at = now
        self._last_moved = max(self._last_moved, now)

    def check_grace(self) -> float:
        """Close the stream if nobody wrote for the grace period; return when to look again.

        For a process that is gone while a descendant still holds the pipe.
        """
        left_s = self._last_moved + self._tools.drain_grace_s - self._tools.loop.now()
        if self.done or self._closing or self._redialling or left_s > 0:
            return max(left_s, RETRY_S)
        if self._pending is None and self._replay is None and not self._readable():
            self._tools.log.info(
                "a descendant still holds the output of a gone process, closing it", stream=self._name
            )
            self._end()
        return max(self._tools.drain_grace_s, RETRY_S)

    def stop_redial(self) -> None:
        """From now on a vanished host ends the stream."""
        redial, self._redial = self._redial, None
        if redial is not None:
            redial.close()
            if redial.active:
                self._give_up("re-dialling was stopped")

    def close(self) -> None:
        """Stop wherever it is, without a word."""
        self.done = True
        if self._redial is not None:
            self._redial.close()
            self._redial = None
        self._drop_connection()
        self._close_source()
        if self._tee >= 0:
            os.close(self._tee)
            self._tee = -1

    # Moving

    def _move(self) -> int:
        """Move one chunk; 0 at the end of the output. BlockingIOError: wait for an event."""
        if self._replay is not None:
            self._replay = self._send(self._replay, record=False)
            return 1
        if self._pending is not None:
            self._pending = self._send(self._pending, record=True)
            return 1
        if self._copying:
            return self._copy()
        try:
            if self._redial is None:
                moved = self._splice()
            else:
                moved = self._splice_and_remember(self._redial.history)
        except BlockingIOError:
            raise
        except OSError as error:
            return self._splice_failed(error)
        if moved:
            self._last_moved = self._tools.loop.now()
            if self._until_busy > 0:
                self._until_busy -= moved
                if self._until_busy <= 0:
                    self._large = self._tools.enlarge(self._source)
        return moved

    def _splice(self) -> int:
        assert self._connection is not None
        return os.splice(self._source, self._connection.fileno(), _CHUNK_BYTES, flags=_SPLICE)

    def _splice_and_remember(self, history: History) -> int:
        assert self._connection is not None
        scratch = self._tools.scratch
        copied = scratch.copy_of(self._source)
        if not copied:
            return 0
        moved = 0
        try:
            moved = os.splice(self._source, self._connection.fileno(), copied, flags=_SPLICE)
        finally:
            history.take(scratch, moved)
            scratch.drop(copied - moved)
        return moved

    def _splice_failed(self, error: OSError) -> int:
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
            self._copying = True  # this kind of socket cannot be spliced to
        elif error.errno in NO_MEMORY:
            self._wait_for_memory()
        else:
            self._connection_failed(error)
        return 1

    def _copy(self) -> int:
        """Read one chunk into the shared buffer and pass it on; keep what does not fit."""
        try:
            count = os.readv(self._source, [self._tools.view])
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno == errno.EIO:  # a terminal whose last slave was closed
                return 0
            raise
        if not count:
            return 0
        self._last_moved = self._tools.loop.now()
        chunk = self._tools.view[:count]
        if self._connection is None:
            self._write_tee(chunk)
            return count
        try:
            rest = self._send(chunk, record=True)
        except BlockingIOError:
            self._pending = memoryview(bytes(chunk))
            raise
        if rest is not None:
            self._pending = memoryview(bytes(rest))
        return count

    def _send(self, chunk: memoryview, *, record: bool) -> memoryview | None:
        """Send once; return what is left of the chunk."""
        if self._connection is None:
            if self._redialling:
                raise BlockingIOError
            return None  # the connection failed for good: this chunk is lost, the file skips it too
        try:
            count = self._connection.send(chunk)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno in NO_MEMORY:
                self._wait_for_memory()
            self._connection_failed(error)
            return chunk if self._redialling and record else None
        if record and self._redial is not None:
            self._redial.history.append(chunk[:count])
        self._write_tee(chunk[:count])
        return chunk[count:] if count < len(chunk) else None

    def _write_tee(self, chunk: memoryview) -> None:
        if self._tee < 0:
            return
        try:
            while chunk:
                chunk = chunk[os.write(self._tee, chunk) :]
        except OSError as error:
            self._tools.log.warning(
                "cannot write the tee file, ignoring it from here",
                stream=self._name,
                error=str(error.strerror),
            )
            os.close(self._tee)
            self._tee = -1

    # A connection that fails

    def _wait_for_memory(self) -> None:
        """Have it tried again; raises BlockingIOError."""
        self._tools.loop.call_later(RETRY_S, self.advance)
        raise BlockingIOError

    def _connection_failed(self, error: OSError) -> None:
        self._drop_connection()
        if self._redial is not None and error.errno in _VANISHED:
            self._redial.begin()
        else:
            self._give_up(f"write: {error.strerror}")

    def _host_is_back(self, connection: _socket.socket, replay: bytes) -> None:
        self._connection = connection
        self._replay = memoryview(replay) if replay else None
        self._watch_connection()
        self.advance()

    def _give_up(self, reason: str) -> None:
        """Go on without a connection: the output is read and dropped."""
        self._tools.log.info(
            "a host connection has failed, dropping its output", stream=self._name, error=reason
        )
        if self._redial is not None:
            self._redial.close()
            self._redial = None
        self._replay = self._pending = None
        self._copying = True
        self._tools.loop.soon(self.advance)

    # The end

    def _end(self) -> None:
        """The output has ended and everything is written."""
        self._close_source()
        if self._connection is None or not self._half_close:
            self._finish()
            return
        try:
            self._connection.shutdown(_socket.SHUT_WR)
        except OSError as error:
            self._tools.log.debug("half-close failed, ignoring", stream=self._name, error=str(error.strerror))
            self._finish()
            return
        self._closing = True
        self._await_host()

    def _await_host(self) -> None:
        """After our half-close the host reads to the end and closes; only then it has all."""
        assert self._connection is not None
        try:
            while data := self._connection.recv(4096):
                self._tools.log.debug(
                    "unexpected data on an output connection, ignoring", stream=self._name, bytes=len(data)
                )
        except BlockingIOError:
            return
        except OSError as error:
            self._tools.log.debug(
                "no orderly end of an output connection, ignoring",
                stream=self._name,
                error=str(error.strerror),
            )
        self._finish()

    def _finish(self) -> None:
        if not self.done:
            self.close()
            self._on_done()

    def _watch_connection(self) -> None:
        if self._connection is not None:
            self._tools.loop.watch(self._connection.fileno(), IN | OUT | EDGE, self.advance)

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._tools.loop.unwatch(connection.fileno())
            connection.close()

    def _close_source(self) -> None:
        if self._own_source and self._source >= 0:
            self._tools.loop.unwatch(self._source)
            os.close(self._source)
            if self._large:
                self._large = False
                self._tools.give_back()
        self._source = -1

    def _readable(self) -> bool:
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        return any(events & select.POLLIN for _, events in poll.poll(0))
