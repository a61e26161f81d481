"""A real monitor whose daemon is the test itself.

The process that the monitor starts as its daemon hands its end of the link over to the
test and then only waits to be killed; the test drives the link in its place.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from uvmd.monitor.link import Link, MonitorError, MonitorState

MONITOR = Path(__file__).parents[2] / "core" / "src" / "uvmd" / "monitor" / "__main__.py"
WAIT_S = 15

_STAND_IN = """
import os, sys, _socket, struct
control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
control.connect(sys.argv[1])
control.sendmsg([str(os.getpid()).encode()], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", 3))])
os.close(3)
order = control.recv(1)
os._exit(order[0] if order else 99)
"""


class Recorder:
    """Events as tuples, in order; ``wait_for`` takes the first that matches."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._seen: list[tuple[Any, ...]] = []

    def _add(self, *event: Any) -> None:
        with self._changed:
            self._seen.append(event)
            self._changed.notify_all()

    def bridge_up(self, generation: int, state: int) -> None:
        self._add("up", generation, state)

    def bridge_frame(self, generation: int, request: int, frame: bytes) -> None:
        self._add("frame", generation, frame, request)

    def bridge_again(self, generation: int, request: int, attempt: int, state: int, frame: bytes) -> None:
        self._add("again", generation, frame, request, attempt, state)

    def bridge_unsent(self, request: int, slot: int, frame: bytes) -> None:
        self._add("unsent", frame, request, slot)

    def bridge_down(self, generation: int, reason: str) -> None:
        self._add("down", generation, reason)

    def exited(self, slot: int, pid: int, status: int) -> None:
        self._add("exited", slot, pid, status)

    def drained(self, slot: int) -> None:
        self._add("drained", slot)

    def stop(self, reason: str) -> None:
        self._add("stop", reason)

    def wait_for(self, *start: Any, timeout_s: float = WAIT_S) -> tuple[Any, ...]:
        """Return, and take out, the first event that begins like this."""
        until = time.monotonic() + timeout_s
        with self._changed:
            while True:
                for event in self._seen:
                    if event[: len(start)] == start:
                        self._seen.remove(event)
                        return event
                left_s = until - time.monotonic()
                assert left_s > 0, f"no {start} among {self._seen}"
                self._changed.wait(left_s)

    def all(self) -> list[tuple[Any, ...]]:
        with self._changed:
            return list(self._seen)


class StandIn:
    """One daemon of the monitor: its process, its link, a thread that polls."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        data, fds, _, _ = socket.recv_fds(control, 64, 1)
        self.pid = int(data)
        self.sock = socket.socket(fileno=fds[0])
        self.events = Recorder()
        self.link = Link(self.sock, self.events)
        self._thread: threading.Thread | None = None

    def greet(self) -> MonitorState:
        """Say HELLO, then poll in a thread of our own."""
        state = self.link.hello()
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self._thread.start()
        return state

    def exit(self, status: int) -> None:
        """Let the process end."""
        self._control.sendall(bytes([status]))

    def close(self) -> None:
        """Close our copy of the link, which outlives the process."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join(WAIT_S)
        self.link.close()
        self._control.close()

    def _poll(self) -> None:
        with contextlib.suppress(MonitorError):
            while True:
                self.link.poll(None)


class LiveMonitor:
    """A monitor process in a folder; its host's sockets are ``host`` and ``host_PORT``."""

    def __init__(self, folder: Path, *, setup: str = "", **popen: Any) -> None:
        self.folder = folder
        self.host = folder / "host"
        self.log = folder / "log"
        self._control = listen(folder / "control")
        self._daemons: list[StandIn] = []
        self._open: list[socket.socket] = []
        daemon = [sys.executable, "-I", "-S", "-c", _STAND_IN, str(folder / "control")]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                ["/usr/bin/python3", "-I", "-S", *program(setup), "--", *daemon],
                **{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": log, **popen},
            )

    def next_daemon(self) -> StandIn:
        """Wait for the monitor to start a daemon."""
        self._control.settimeout(WAIT_S)
        connection, _ = self._control.accept()
        daemon = StandIn(connection)
        self._daemons.append(daemon)
        return daemon

    def start(self) -> StandIn:
        """Return the first daemon, greeted, its stdio ports on unix sockets."""
        daemon = self.next_daemon()
        daemon.greet()
        daemon.link.set_stream_base(f"unix:{self.host}")
        return daemon

    def listen(self, port: int | None = None) -> socket.socket:
        """Listen as the host does, on a stdio port or for the bridge; closed in the end."""
        listener = listen(self.host if port is None else Path(f"{self.host}_{port}"))
        self._open.append(listener)
        return listener

    def accept(self, listener: socket.socket) -> socket.socket:
        """Take one connection; closed in the end."""
        connection, _ = listener.accept()
        connection.settimeout(WAIT_S)
        self._open.append(connection)
        return connection

    def wait(self) -> int:
        return self.process.wait(WAIT_S)

    def __enter__(self) -> LiveMonitor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for daemon in self._daemons:
            daemon.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(daemon.pid, 9)
        for sock in [self._control, *self._open]:
            sock.close()
        log = self.log.read_text(errors="replace")
        if kind is not None:
            sys.stderr.write(log)
        else:
            assert "internal error" not in log, log
            assert "an output has failed" not in log, log


def program(setup: str) -> list[str]:
    """The monitor as it is started, or with other constants: ``monitor.STOP_S = 1``."""
    if not setup:
        return [str(MONITOR)]
    folder = MONITOR.parents[2]
    lines = [f"import sys; sys.path.insert(0, {str(folder)!r})"]
    lines += ["from uvmd.monitor import monitor, redial", setup, "sys.exit(monitor.main())"]
    return ["-c", "\n".join(lines)]


def listen(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    path.unlink(missing_ok=True)
    sock.bind(str(path))
    sock.listen()
    sock.settimeout(WAIT_S)
    return sock


def read_all(connection: socket.socket) -> bytes:
    """Read to the end of file."""
    parts = []
    while data := connection.recv(1 << 16):
        parts.append(data)
    return b"".join(parts)


def read_exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        assert more, f"ended after {len(data)} of {count} bytes"
        data += more
    return data


@contextlib.contextmanager
def in_thread(call: Callable[..., Any], *arguments: Any) -> Iterator[list[Any]]:
    """Run a blocking call beside the body; its result, or error, is the list's one item."""
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(call(*arguments))
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield result
    thread.join(WAIT_S)
    assert not thread.is_alive(), f"{call} did not return"
