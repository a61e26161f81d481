"""One bridge connection seen from the host: requests out, responses and notifications in.

There is no thread here. Whoever waits for something reads the socket for everybody:
one waiter at a time is the reader, hands frames to whom they belong, and passes the task
on when its own has come. A thread of its own would cost each request a switch there and a
switch back, 50 us on a small machine, more than all the rest of the client.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from uvmd.bridge import frames
from uvmd.bridge.identifiers import NOTIFICATION, RESPONSE, kind, response_type
from uvmd.client.errors import BadResponse, ConnectionLost, ResponseTimeout
from uvmd.client.protocol import raise_for_result
from uvmd.errors import ProtocolError

#: The host gives up a synchronous request after this long (spec bridge.md 11.2).
DEFAULT_TIMEOUT_S = 300.0
#: Notifications that nobody fetches are dropped from the oldest.
MAX_NOTIFICATIONS = 4096
_RECEIVE_BYTES = 1 << 16


def random_id_base() -> int:
    """Return where a connection's request ids begin.

    One daemon serves one-shot clients in turn and delivers a late response on the next
    connection. Ids that start anywhere keep it from being taken for one of ours.
    """
    return 1 + (int.from_bytes(os.urandom(8), "little") >> 2)


class Pending:
    """A request whose response may not have come yet."""

    __slots__ = ("_connection", "body", "id", "request_type", "response_type")

    def __init__(self, connection: Connection, request_type: int, id_: int) -> None:
        self._connection = connection
        self.request_type = request_type
        self.id = id_
        #: Type word and body of the response; None until it came.
        self.response_type: int | None = None
        self.body: bytes | None = None

    @property
    def done(self) -> bool:
        """Whether the response has been read. Does not read."""
        return self.body is not None

    def wait(self, timeout_s: float | None = DEFAULT_TIMEOUT_S) -> bool:
        """Block until the response is there; False when the time is up. May be repeated.

        Raises:
            ConnectionLost: it will not come.
        """
        return self._connection.wait_until(self._is_done, timeout_s)

    def raw(self, timeout_s: float | None = DEFAULT_TIMEOUT_S) -> bytes:
        """Return the response's body, whatever its result.

        Raises:
            ResponseTimeout: not within *timeout_s*; the response, if it comes, is ignored.
            ConnectionLost: it will not come.
            BadResponse: a response of another type came under this id.
        """
        if self.body is None and not self.wait(timeout_s):
            self._connection.forget(self)
            raise ResponseTimeout(f"no response to 0x{self.request_type:08x} within {timeout_s:g} s")
        body, type_ = self.body, self.response_type
        if body is None or type_ != response_type(self.request_type):
            raise BadResponse(f"0x{self.request_type:08x} was answered by 0x{type_ or 0:08x}")
        return body

    def result(self, timeout_s: float | None = DEFAULT_TIMEOUT_S) -> dict[str, Any]:
        """Return the response as an object.

        Raises:
            RemoteError: the daemon's ``Result`` is not 0.
            ResponseTimeout, ConnectionLost, BadResponse: as :meth:`raw`.
        """
        response = parse_object(self.raw(timeout_s))
        if response.get("Result", 0) != 0:
            raise_for_result(self.request_type, response)
        return response

    def abandon(self) -> None:
        """Forget the request: its response will be ignored."""
        self._connection.forget(self)

    def _is_done(self) -> bool:
        return self.body is not None


class Connection:
    """Requests and notifications over a connected socket. Every method is thread-safe.

    Never call it from a signal handler: the interrupted thread may be the reader.

    Args:
        sock: a connected stream socket; owned from here on.
        first_id: the first request's id; by default random.
    """

    def __init__(self, sock: socket.socket, *, first_id: int | None = None) -> None:
        sock.settimeout(None)
        self._sock = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._decoder = frames.Decoder()
        self._ids = itertools.count(random_id_base() if first_id is None else first_id)
        self._sending = threading.Lock()
        # Guards everything below; the reader leaves it while it reads.
        self._state = threading.Condition(threading.Lock())
        self._reading = False
        self._followers = 0
        self._outstanding: dict[int, Pending] = {}
        self._notifications: deque[tuple[int, bytes]] = deque(maxlen=MAX_NOTIFICATIONS)
        self._lost = ""

    def submit(self, request_type: int, body: bytes) -> Pending:
        """Send a request and return at once.

        Raises:
            ConnectionLost: it could not be sent.
        """
        pending = Pending(self, request_type, next(self._ids))
        with self._state:
            if self._lost:
                raise ConnectionLost(self._lost)
            self._outstanding[pending.id] = pending
        try:
            with self._sending:
                header = frames.HEADER.pack(request_type, frames.HEADER_BYTES + len(body), pending.id)
                self._sock.sendall(header + body)
        except OSError as error:
            self._end(f"the connection broke: {error.strerror}")
            raise ConnectionLost(self._lost) from error
        return pending

    def request(
        self, request_type: int, body: bytes, timeout_s: float | None = DEFAULT_TIMEOUT_S
    ) -> dict[str, Any]:
        """Send a request and return its response; raises as :meth:`Pending.result`."""
        return self.submit(request_type, body).result(timeout_s)

    def notification(self, timeout_s: float | None = None) -> tuple[int, bytes] | None:
        """Return the next notification's type word and body, or None when the time is up.

        Raises:
            ConnectionLost: none is left and none will come.
        """
        if not self.wait_until(self._has_notification, timeout_s):
            return None
        with self._state:
            # Another thread may have been quicker.
            return self._notifications.popleft() if self._notifications else None

    def forget(self, pending: Pending) -> None:
        """Ignore the response of *pending* from now on."""
        with self._state:
            self._outstanding.pop(pending.id, None)

    def close(self) -> None:
        """End the connection; whoever waits gets ConnectionLost."""
        self._end("the connection was closed")
        with self._state:
            # The reader may be inside recv; it wakes by the shutdown and must be out
            # before the descriptor's number can belong to somebody else.
            while self._reading:
                self._state.wait()
        self._sock.close()

    def wait_until(self, ready: Callable[[], bool], timeout_s: float | None) -> bool:
        """Read until *ready* holds (True) or the time is up (False).

        Raises:
            ConnectionLost: *ready* does not hold and the connection has ended.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._state:
            while True:
                if ready():
                    return True
                if self._lost:
                    raise ConnectionLost(self._lost)
                if not self._reading:
                    self._reading = True
                    break
                if not self._follow(deadline):
                    return ready()
        try:
            return self._read_until(ready, deadline)
        finally:
            with self._state:
                self._reading = False
                self._state.notify_all()

    def _follow(self, deadline: float | None) -> bool:
        self._followers += 1
        try:
            return self._state.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        finally:
            self._followers -= 1

    def _read_until(self, ready: Callable[[], bool], deadline: float | None) -> bool:
        while True:
            try:
                frame = self._decoder.next_frame()
            except ProtocolError as error:
                self._end(f"the daemon broke the framing: {error}")
                raise ConnectionLost(self._lost) from error
            if frame is not None:
                self._deliver(frame)
                if ready():
                    return True
                continue
            if deadline is not None:
                left_ms = (deadline - time.monotonic()) * 1000
                if not self._poll.poll(max(0.0, left_ms)):
                    return False
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._sock.recv(_RECEIVE_BYTES)
        except OSError as error:
            self._end(f"the connection broke: {error.strerror}")
            raise ConnectionLost(self._lost) from error
        if not data:
            self._end("the daemon closed the connection")
            raise ConnectionLost(self._lost)
        self._decoder.feed(data)

    def _deliver(self, frame: frames.Frame) -> None:
        of_kind = kind(frame.type)
        with self._state:
            if of_kind == RESPONSE:
                pending = self._outstanding.pop(frame.id, None)
                # Unknown ids belong to an earlier client of the same daemon.
                if pending is not None:
                    pending.response_type = frame.type
                    pending.body = frame.body
            elif of_kind == NOTIFICATION:
                self._notifications.append((frame.type, frame.body))
            if self._followers:
                self._state.notify_all()

    def _end(self, reason: str) -> None:
        with self._state:
            if not self._lost:
                self._lost = reason
            self._outstanding.clear()
            self._state.notify_all()
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # Already disconnected.

    def _has_notification(self) -> bool:
        return bool(self._notifications)


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a response or notification.

    Raises:
        BadResponse: it is none.
    """
    try:
        value = json.loads(body)
    except ValueError as error:
        raise BadResponse(f"the daemon sent a body that is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadResponse("the daemon sent a body that is no JSON object")
    return value
