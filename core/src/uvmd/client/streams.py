"""Copying a process's streams with the etiquette of the protocol (spec bridge.md 11.5).

Our input's end is a half-close. An output's end is answered by closing our side; the exit
code comes only after that.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

#: How long output may trail the exit code (spec bridge.md 11.5).
TRAILING_S = 1.0
_BUFFER_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Stdio:
    """Our descriptors that the streams are copied from and to; None: not requested."""

    stdin: int | None = None
    stdout: int | None = None
    stderr: int | None = None


class Streams:
    """The connected streams of one process.

    ``incomplete`` tells that the guest did not dial all of them.
    """

    def __init__(
        self,
        stdin: socket.socket | None,
        stdout: socket.socket | None,
        stderr: socket.socket | None,
        *,
        incomplete: bool = False,
    ) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.incomplete = incomplete
        #: time.monotonic() of the first output byte; 0.0 until then.
        self.first_output = 0.0
        self._copiers: list[threading.Thread] = []
        self._outputs: list[threading.Thread] = []

    def copy(self, stdio: Stdio, *, on_broken: Callable[[], None] | None = None) -> None:
        """Start copying in the background.

        Args:
            stdio: our ends; they stay open.
            on_broken: called once from a copying thread when an output of ours no longer
                takes data; the rest of that stream is read and dropped.
        """
        if self.stdin is not None and stdio.stdin is not None:
            self._spawn(_copy_input, stdio.stdin, self.stdin)
        for connection, descriptor in ((self.stdout, stdio.stdout), (self.stderr, stdio.stderr)):
            if connection is not None:
                self._outputs.append(self._spawn(self._copy_output, connection, descriptor, on_broken))

    def collect(self, stdin: bytes = b"") -> tuple[bytes, bytes]:
        """Feed *stdin*, read both outputs to their end and return them; no thread is made."""
        gathered = {
            connection: bytearray() for connection in (self.stdout, self.stderr) if connection is not None
        }
        with _Feeder(self.stdin, stdin) as feeder:
            poll = select.poll()
            sockets = {connection.fileno(): connection for connection in gathered}
            for descriptor in sockets:
                poll.register(descriptor, select.POLLIN)
            feeder.register(poll)
            while sockets:
                for descriptor, _ in poll.poll():
                    connection = sockets.get(descriptor)
                    if connection is None:
                        feeder.feed(poll)
                    elif not self._gather(connection, gathered[connection]):
                        poll.unregister(descriptor)
                        sockets.pop(descriptor).close()
        return _gathered(gathered, self.stdout), _gathered(gathered, self.stderr)

    def finish(self, timeout_s: float = TRAILING_S) -> None:
        """After the exit code: let trailing output arrive, then close everything."""
        deadline = time.monotonic() + timeout_s
        for thread in self._outputs:
            thread.join(max(0.0, deadline - time.monotonic()))
        self.close()

    def close(self) -> None:
        """Close all connections and end the copying. May be called twice."""
        connections = [sock for sock in (self.stdin, self.stdout, self.stderr) if sock is not None]
        for connection in connections:
            _shutdown(connection, socket.SHUT_RDWR)
        # Their descriptors' numbers must not be reused while a thread still polls them. A
        # thread that hangs in a write of ours cannot be woken; its socket is left to it.
        for thread in self._copiers:
            thread.join(TRAILING_S)
        if not any(thread.is_alive() for thread in self._copiers):
            for connection in connections:
                connection.close()

    def _spawn(self, target: Callable[..., None], *arguments: object) -> threading.Thread:
        # Daemon threads: one may sit in a read of the terminal when the program ends.
        thread = threading.Thread(target=target, args=arguments, daemon=True, name=f"uvmd-{target.__name__}")
        self._copiers.append(thread)
        thread.start()
        return thread

    def _copy_output(
        self, connection: socket.socket, descriptor: int | None, on_broken: Callable[[], None] | None
    ) -> None:
        buffer = bytearray(_BUFFER_BYTES)
        view = memoryview(buffer)
        while True:
            try:
                count = connection.recv_into(buffer)
            except OSError:
                break
            if not count:
                break
            self.first_output = self.first_output or time.monotonic()
            if descriptor is None:
                continue
            try:
                write_all(descriptor, view[:count])
            except OSError:
                # Reading goes on: closing early would make the guest dial again and wait.
                descriptor = None
                if on_broken is not None:
                    on_broken()
        # The guest waits for this before it reports the exit code.
        _shutdown(connection, socket.SHUT_RDWR)
        connection.close()

    def _gather(self, connection: socket.socket, into: bytearray) -> bool:
        try:
            data = connection.recv(_BUFFER_BYTES)
        except OSError:
            return False
        if data:
            self.first_output = self.first_output or time.monotonic()
            into += data
        return bool(data)


class _Feeder:
    """Writes a fixed input to stdin as it takes it, then ends it."""

    def __init__(self, connection: socket.socket | None, data: bytes) -> None:
        self._connection = connection
        self._left = memoryview(data)

    def __enter__(self) -> _Feeder:
        if self._connection is not None:
            self._connection.setblocking(False)
            if not self._left:
                _shutdown(self._connection, socket.SHUT_WR)
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.setblocking(True)

    def register(self, poll: select.poll) -> None:
        if self._connection is not None and self._left:
            poll.register(self._connection, select.POLLOUT)

    def feed(self, poll: select.poll) -> None:
        if self._connection is None:
            return
        try:
            self._left = self._left[self._connection.send(self._left) :]
        except BlockingIOError:
            return
        except OSError:
            self._left = memoryview(b"")  # The process does not read any more.
        if not self._left:
            poll.unregister(self._connection)
            _shutdown(self._connection, socket.SHUT_WR)


def write_all(descriptor: int, data: memoryview | bytes) -> None:
    """Write everything, also to a descriptor that somebody else made non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()


def _copy_input(descriptor: int, connection: socket.socket) -> None:
    """Copy until our input ends (half-close) or the guest has closed the connection."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.register(connection, 0)  # Errors and hang-up are always reported.
    try:
        while True:
            ready = dict(poll.poll())
            if connection.fileno() in ready:
                return
            data = os.read(descriptor, _BUFFER_BYTES)
            if not data:
                break
            connection.sendall(data)
    except OSError:
        pass  # Our terminal is gone or the process does not read any more.
    _shutdown(connection, socket.SHUT_WR)


def _gathered(all_: Mapping[socket.socket, bytearray], connection: socket.socket | None) -> bytes:
    return bytes(all_[connection]) if connection is not None else b""


def _shutdown(connection: socket.socket, how: int) -> None:
    try:
        connection.shutdown(how)
    except OSError:
        pass  # Not connected any more, which is what was wanted.
