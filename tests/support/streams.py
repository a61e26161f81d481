"""The host's ends of a process's streams: one listener each, which accepts once."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
from pathlib import Path

CHUNK = 1 << 18


def listen(path: Path) -> socket.socket:
    """A listening unix socket; a stale one at the same place is replaced."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(64)
    return listener


def _accept(listener: socket.socket, timeout_s: float) -> socket.socket:
    path = listener.getsockname()
    listener.settimeout(timeout_s)
    try:
        connection, _ = listener.accept()
    finally:
        listener.close()
        Path(path).unlink(missing_ok=True)
    connection.settimeout(None)
    return connection


class Input:
    """The host's end of stdin. The connection is accepted on first use."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._connection: socket.socket | None = None

    @property
    def connection(self) -> socket.socket:
        if self._connection is None:
            self._connection = _accept(self._listener, 15)
        return self._connection

    def write(self, data: bytes) -> None:
        self.connection.sendall(data)

    def half_close(self) -> None:
        """What CloseStdin does: the process sees end of file, the connection stays."""
        self.connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.connection.close()

    def abandon(self) -> None:
        if self._connection is not None:
            self._connection.close()
        else:
            _discard(self._listener)


def _discard(listener: socket.socket) -> None:
    if listener.fileno() < 0:
        return
    path = listener.getsockname()
    listener.close()
    Path(path).unlink(missing_ok=True)


class Output:
    """The host's end of stdout or stderr: read by a thread of its own up to the end of file.

    Args:
        keep: keep the bytes; without it only their number and SHA-256 are known.
        close_after: hang up once so many bytes have come, as a host that vanishes.
        hold: do not close after end of file; ``close`` does.
        start: a barrier that reading waits for.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        keep: bool = True,
        close_after: int | None = None,
        hold: bool = False,
        start: threading.Event | None = None,
    ) -> None:
        self._listener = listener
        self._keep, self._close_after, self._hold, self._start = keep, close_after, hold, start
        self._digest = hashlib.sha256()
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        #: From here on the same port may be listened on anew.
        self.accepted = threading.Event()
        self.connection: socket.socket | None = None
        self.received = bytearray()
        self.count = 0
        self.ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.connection = _accept(self._listener, 60)
            self.accepted.set()
            if self._start is not None:
                self._start.wait(60)
            while data := self.connection.recv(CHUNK):
                with self._changed:
                    self.count += len(data)
                    self._digest.update(data)
                    if self._keep:
                        self.received += data
                    self._changed.notify_all()
                if self._close_after is not None and self.count >= self._close_after:
                    break
        except OSError as error:
            self._failure = error
        finally:
            if self.connection is not None and not self._hold:
                self.connection.close()
            with self._changed:
                self.ended = True
                self._changed.notify_all()

    def read_until(self, text: bytes, timeout_s: float = 20) -> bytes:
        """Wait until ``text`` has come; return all that came."""
        with self._changed:
            seen = self._changed.wait_for(lambda: text in self.received or self.ended, timeout_s)
            assert seen, f"no {text!r} within {timeout_s} s, only {bytes(self.received[-2000:])!r}"
            assert text in self.received, f"ended without {text!r}: {bytes(self.received[-2000:])!r}"
            return bytes(self.received)

    def wait_for_bytes(self, count: int, timeout_s: float = 20) -> None:
        with self._changed:
            came = self._changed.wait_for(lambda: self.count >= count or self.ended, timeout_s)
            assert came, f"{self.count} of {count} bytes within {timeout_s} s"

    def read_all(self, timeout_s: float = 30) -> bytes:
        """Wait for end of file; return every byte."""
        self.join(timeout_s)
        return bytes(self.received)

    def join(self, timeout_s: float = 30) -> None:
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), f"no end of file within {timeout_s} s, {self.count} bytes so far"
        if self._failure is not None:
            raise self._failure

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()

    def abandon(self) -> None:
        """Give up a stream that was never dialled, or that was hung up on."""
        if not self.accepted.is_set():
            # A connection of our own wakes the thread that waits in accept.
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as knock:
                knock.connect(self._listener.getsockname())
        if self.connection is not None:
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self.close()
        self._failure = None
