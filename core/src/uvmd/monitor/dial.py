"""Connecting to the host without blocking: one port, or one after the other.

The retry rule is the bridge specification's (1.1): a timeout is tried again after
100 ms, at most ten times; any other error fails at once.
"""

from __future__ import annotations

import _socket
import errno
import os

from uvmd.monitor.loop import OUT, Loop, Timer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RETRY_S = 0.1
ATTEMPTS = 10

_MAX_U32 = 0xFFFFFFFF


class Target:
    """Where to connect: a vsock CID and port, or the path of a unix socket."""

    __slots__ = ("address", "family")

    def __init__(self, family: int, address: tuple[int, int] | str) -> None:
        self.family = family
        self.address = address

    def __str__(self) -> str:
        if isinstance(self.address, str):
            return f"unix:{self.address}"
        return "vsock:{}:{}".format(*self.address)


def parse_target(text: str) -> Target:
    """Parse ``vsock:CID:PORT`` or ``unix:PATH``.

    Raises:
        ValueError: neither.
    """
    kind, _, rest = text.partition(":")
    if kind == "unix" and rest:
        return Target(_socket.AF_UNIX, rest)
    if kind == "vsock":
        cid, _, port = rest.partition(":")
        if cid.isdecimal() and port.isdecimal() and int(cid) <= _MAX_U32 and int(port) <= _MAX_U32:
            return Target(_socket.AF_VSOCK, (int(cid), int(port)))
    raise ValueError(f"no address to dial: {text!r}")


def parse_base(text: str) -> Callable[[int], Target]:
    """Parse ``vsock:CID`` or ``unix:PATH`` into what turns a stdio port into a target.

    Raises:
        ValueError: neither.
    """
    kind, _, rest = text.partition(":")
    if kind == "unix" and rest:
        return lambda port: Target(_socket.AF_UNIX, f"{rest}_{port}")
    if kind == "vsock" and rest.isdecimal() and int(rest) <= _MAX_U32:
        cid = int(rest)
        return lambda port: Target(_socket.AF_VSOCK, (cid, port))
    raise ValueError(f"no base for stdio ports: {text!r}")


class Dial:
    """One connection being made; ends in exactly one call of done or failed, or in cancel.

    The connection handed to ``done`` is non-blocking and close-on-exec.
    """

    def __init__(
        self,
        loop: Loop,
        target: Target,
        done: Callable[[_socket.socket], None],
        failed: Callable[[OSError], None],
        *,
        deadline_s: float,
        attempts: int = ATTEMPTS,
    ) -> None:
        self._loop = loop
        self._target = target
        self._done = done
        self._failed = failed
        self._left = attempts
        self._sock: _socket.socket | None = None
        self._retry: Timer | None = None
        self._deadline = loop.call_later(deadline_s, self._out_of_time)
        # Not at once: the caller has not even stored us yet.
        self._retry = loop.call_later(0, self._try)

    def cancel(self) -> None:
        """Give up without a word."""
        self._deadline.cancel()
        if self._retry is not None:
            self._retry.cancel()
        self._drop()

    def _try(self) -> None:
        self._left -= 1
        try:
            sock = _socket.socket(self._target.family, _socket.SOCK_STREAM)
            os.set_inheritable(sock.fileno(), False)
            sock.setblocking(False)
            self._sock = sock
            sock.connect(self._target.address)
        except BlockingIOError as error:
            if error.errno == errno.EAGAIN:
                # A unix listener whose backlog is full; nothing tells when there is room.
                self._again()
                return
            assert self._sock is not None
            self._loop.watch(self._sock.fileno(), OUT, self._connected)
        except OSError as error:
            self._fail(error)
        else:
            self._succeed()

    def _connected(self, _events: int) -> None:
        assert self._sock is not None
        self._loop.unwatch(self._sock.fileno())
        code = self._sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        if code == 0:
            self._succeed()
        elif code == errno.ETIMEDOUT and self._left > 0:
            self._again()
        else:
            self._fail(OSError(code, os.strerror(code)))

    def _again(self) -> None:
        self._drop()
        self._retry = self._loop.call_later(RETRY_S, self._try)

    def _succeed(self) -> None:
        self._deadline.cancel()
        sock, self._sock = self._sock, None
        assert sock is not None
        self._done(sock)

    def _fail(self, error: OSError) -> None:
        self.cancel()
        self._failed(OSError(error.errno, f"connect {self._target}: {error.strerror}"))

    def _out_of_time(self) -> None:
        self._fail(OSError(errno.ETIMEDOUT, "no answer before the deadline"))

    def _drop(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            self._loop.unwatch(sock.fileno())
            sock.close()


class DialAll:
    """Dials several targets in order (None: a stream that is not wanted), all or none."""

    def __init__(
        self,
        loop: Loop,
        targets: Sequence[Target | None],
        done: Callable[[list[_socket.socket | None]], None],
        failed: Callable[[OSError], None],
        *,
        deadline_s: float,
    ) -> None:
        self._loop = loop
        self._targets = list(targets)
        self._done = done
        self._failed = failed
        self._until = loop.now() + deadline_s
        self._made: list[_socket.socket | None] = []
        self._dial: Dial | None = None
        self._timer = loop.call_later(0, self._next)

    def cancel(self) -> None:
        """Give up without a word, and close what was made."""
        self._timer.cancel()
        if self._dial is not None:
            self._dial.cancel()
        for sock in self._made:
            if sock is not None:
                sock.close()
        self._made = []

    def _next(self) -> None:
        while len(self._made) < len(self._targets):
            target = self._targets[len(self._made)]
            if target is not None:
                left_s = max(0.0, self._until - self._loop.now())
                self._dial = Dial(self._loop, target, self._one, self._fail, deadline_s=left_s)
                return
            self._made.append(None)
        made, self._made = self._made, []
        self._done(made)

    def _one(self, sock: _socket.socket) -> None:
        self._made.append(sock)
        self._next()

    def _fail(self, error: OSError) -> None:
        self.cancel()
        self._failed(error)
