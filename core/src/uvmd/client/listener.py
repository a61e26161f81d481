"""Taking turns on the address and accepting the daemon's next connection.

One daemon, one bridge: whoever holds the lock file's lock listens, everybody else waits.
The lock also makes a left-over socket of a killed command safe to remove.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import stat
import time
from collections.abc import Callable
from types import TracebackType

from uvmd.client.address import Address, Listening, ensure_parent, unlink_quietly
from uvmd.client.errors import AddressError, ConnectTimeout

#: After this long a waiting command says what it waits for.
PATIENCE_S = 1.0
# flock(2) cannot wait with a deadline, and an alarm would belong to the program, not to us.
_LOCK_PAUSE_S = 0.05
_SHARING = "one connection at a time; `uvmctl host` holds it for all commands"


class Listener:
    """Listens for the daemon's bridge connection as soon as it is this process's turn.

    Args:
        address: where to listen.
        timeout_s: for getting the turn.
        on_wait: called once with a sentence when it takes longer than PATIENCE_S.

    Raises:
        ConnectTimeout: another process kept the address for all that time.
        AddressError: the address cannot be used.
    """

    def __init__(
        self, address: Address, *, timeout_s: float = 60.0, on_wait: Callable[[str], None] | None = None
    ) -> None:
        self.address = address
        self._on_wait = on_wait
        self._turn = _Turn(address, timeout_s, on_wait)
        try:
            if address.path:
                _remove_stale_socket(address.path)
            self._listening: Listening | None = address.listen()
        except BaseException:
            self._turn.close()
            raise

    def accept(self, timeout_s: float | None = 60.0) -> socket.socket:
        """Return the daemon's next connection.

        Raises:
            ConnectTimeout: nobody connected.
        """
        if self._listening is None:
            raise AddressError("the listener is closed")
        sock = self._listening.sock
        patience_s = PATIENCE_S if timeout_s is None else min(PATIENCE_S, timeout_s)
        if not _readable(sock, patience_s):
            if self._on_wait is not None:
                self._on_wait(f"waiting for uvmd to connect to {self.address} ({self._hint})")
            if not _readable(sock, None if timeout_s is None else timeout_s - patience_s):
                raise ConnectTimeout(
                    f"no uvmd connected to {self.address} within {timeout_s:g} s ({self._hint})"
                )
        connection, _ = sock.accept()
        return connection

    def stop_listening(self) -> None:
        """Accept no further connection, but keep the turn. May be called twice."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    def close(self) -> None:
        """Stop listening and give the turn to the next. May be called twice."""
        self.stop_listening()
        self._turn.close()

    def fileno(self) -> int:
        """The listening descriptor, for callers with their own event loop."""
        return self._listening.sock.fileno() if self._listening is not None else -1

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _hint(self) -> str:
        return f"start it with: uvmd serve --transport {self.address.serve_hint}"


class _Turn:
    """The lock of one address, held by at most one process."""

    def __init__(self, address: Address, timeout_s: float, on_wait: Callable[[str], None] | None) -> None:
        self._path = address.lock_path
        self._fd = -1
        ensure_parent(self._path)
        began = time.monotonic()
        announced = False
        while not self._try():
            waited = time.monotonic() - began
            if waited >= timeout_s:
                raise ConnectTimeout(f"{self._holder()} kept {address} for {timeout_s:g} s ({_SHARING})")
            if waited >= PATIENCE_S and not announced and on_wait is not None:
                on_wait(f"waiting for {self._holder()} to leave {address} ({_SHARING})")
                announced = True
            time.sleep(_LOCK_PAUSE_S)

    def close(self) -> None:
        if self._fd >= 0:
            # Removed while it is still locked: nobody can have locked this file in between.
            unlink_quietly(self._path)
            os.close(self._fd)
            self._fd = -1

    def _try(self) -> bool:
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise AddressError(f"cannot open {self._path}: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder may have removed the name between our open and our lock.
            if _same_file(fd, self._path):
                os.ftruncate(fd, 0)
                os.write(fd, b"%d\n" % os.getpid())
                self._fd = fd
                return True
        except BlockingIOError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return False

    def _holder(self) -> str:
        try:
            with open(self._path, encoding="ascii", errors="replace") as file:
                return f"process {int(file.readline(32))}"
        except (OSError, ValueError):
            return "another process"


def _same_file(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _remove_stale_socket(path: str) -> None:
    """Remove what a killed command left; anything but a dead socket stays and is an error."""
    try:
        mode = os.stat(path, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AddressError(f"{path} is in the way and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            unlink_quietly(path)
            return
        except OSError as error:
            raise AddressError(f"cannot tell who listens on {path}: {error.strerror}") from error
    raise AddressError(f"another program listens on {path}")


def _readable(sock: socket.socket, timeout_s: float | None) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else max(0.0, timeout_s * 1000)))
