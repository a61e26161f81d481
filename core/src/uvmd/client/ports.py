"""The ports of a process's streams: chosen, listened on, accepted, removed.

The host listens on one port a stream before it sends Execute; the guest dials them all
before the process starts, stdin, stdout, stderr in this order (spec bridge.md 11.4).
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

from uvmd.client.address import Address, Listening
from uvmd.client.errors import AddressError, StreamError
from uvmd.client.streams import Streams

#: What the guest needs to have dialled by the time Execute is answered, with some mercy.
ACCEPT_S = 1.0
_FIRST_PORT = 0x40000001
_LAST_PORT = 0x7FFFFFFF
_TRIES = 64

NextPort = Callable[[], int]


def random_ports() -> NextPort:
    """Return a source of port numbers that begins anywhere in the customary range.

    A container's init dials its output ports again after its host went away. Numbers from
    a fixed start would connect it to the next command's streams.
    """
    span = _LAST_PORT - _FIRST_PORT
    at = int.from_bytes(os.urandom(8), "little") % span
    lock = threading.Lock()

    def next_port() -> int:
        nonlocal at
        with lock:
            at = (at + 1) % span
            return _FIRST_PORT + at

    return next_port


class StreamPorts:
    """Listens on one port for each wanted stream, until they are accepted.

    Use it as a context manager around Execute: leaving it closes and removes whatever is
    still listening.

    Raises:
        StreamError: no free port was found or listening is impossible.
    """

    def __init__(
        self, address: Address, next_port: NextPort, *, stdin: bool, stdout: bool, stderr: bool
    ) -> None:
        self._listening: list[Listening | None] = []
        self._ports: list[int | None] = []
        with ExitStack() as undo:
            undo.callback(self.close)
            for wanted in (stdin, stdout, stderr):
                listening, port = _listen_somewhere(address, next_port) if wanted else (None, None)
                self._listening.append(listening)
                self._ports.append(port)
            undo.pop_all()

    @property
    def ports(self) -> tuple[int | None, int | None, int | None]:
        """The port numbers of stdin, stdout, stderr."""
        return (self._ports[0], self._ports[1], self._ports[2])

    def accept(self, timeout_s: float = ACCEPT_S) -> Streams:
        """Accept the connections of an Execute that was answered, and stop listening.

        A stream that nobody dialled (the policy denies stdio) is left out.
        """
        deadline = time.monotonic() + timeout_s
        accepted: list[socket.socket | None] = []
        with ExitStack() as undo:
            for listening in self._listening:
                connection = _accept(listening, deadline) if listening is not None else None
                if connection is not None:
                    undo.callback(connection.close)
                accepted.append(connection)
            undo.pop_all()
        self.close()
        incomplete = accepted.count(None) > self._listening.count(None)
        return Streams(accepted[0], accepted[1], accepted[2], incomplete=incomplete)

    def close(self) -> None:
        """Stop listening and remove the names. May be called twice."""
        for listening in self._listening:
            if listening is not None:
                listening.close()

    def __enter__(self) -> StreamPorts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _accept(listening: Listening, deadline: float) -> socket.socket | None:
    listening.sock.settimeout(max(0.0, deadline - time.monotonic()))
    try:
        connection, _ = listening.sock.accept()
    except (TimeoutError, BlockingIOError):
        return None
    connection.settimeout(None)
    return connection


def _listen_somewhere(address: Address, next_port: NextPort) -> tuple[Listening, int]:
    for attempt in range(_TRIES):
        port = next_port()
        try:
            return address.listen(port), port
        except AddressError as error:
            if attempt == _TRIES - 1:
                raise StreamError(str(error)) from error
    raise StreamError("no port was tried")
