"""The monitor's loop and relays inside the test's own process."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator

from uvmd.monitor.log import Log
from uvmd.monitor.loop import Loop
from uvmd.monitor.tools import Tools


class QuietLog(Log):
    """Keeps the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def _write(self, level: str, message: str, facts: dict[str, object]) -> None:
        self.lines.append(f"{level} {message} {facts}")


def raise_it(error: BaseException) -> None:
    raise error


class Parts:
    """A loop whose failures fail the test, and what relays share."""

    def __init__(self) -> None:
        self.log = QuietLog()
        self.loop = Loop(raise_it)
        self.tools = Tools(self.loop, self.log)

    def run_until(self, condition: Callable[[], object], timeout_s: float = 10) -> None:
        """Serve until the condition holds."""
        until = time.monotonic() + timeout_s
        # Asked once each time: a condition may well read what it looks at.
        held: list[object] = []

        def look() -> None:
            if found := condition():
                held.append(found)
            if held or time.monotonic() > until:
                self.loop.stop()
            else:
                self.loop.call_later(0.001, look)

        self.loop.call_later(0, look)
        self.loop.run()
        assert held, self.log.lines

    def close(self) -> None:
        scratch = self.tools.scratch
        for fd in (scratch.read_end, scratch.write_end, scratch._sink):
            os.close(fd)


def socket_pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


def read_available(sock: socket.socket) -> bytes:
    parts = []
    while True:
        try:
            data = sock.recv(1 << 16)
        except BlockingIOError:
            break
        if not data:
            break
        parts.append(data)
    return b"".join(parts)


def nonblocking_pipe() -> tuple[int, int]:
    return os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)


@contextlib.contextmanager
def no_descriptors() -> Iterator[list[int]]:
    """Have this process at its limit; it may close what is in the list."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        yield taken
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)
