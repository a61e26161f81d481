"""The daemon's end of the link: ask the monitor from any thread, hear of it on one.

One thread calls ``poll`` in a loop; it receives everything, wakes the threads whose
answers came, and calls ``Events``. A call from that very thread receives by itself until
its answer is there; events that arrive meanwhile wait for the next ``poll``.
"""

from __future__ import annotations

import errno
import itertools
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from uvmd.monitor import packets, wire
from uvmd.monitor.conversation import GRACE_S, Conversation, MonitorError

__all__ = ["Completed", "Events", "Link", "MonitorError", "MonitorState", "SlotState"]

_NS = 1_000_000_000
_LONGEST_S = 1e6


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that has run to completion.

    ``status`` is the exit code, or minus the signal. ``output`` is stdout and stderr as
    they came, cut to the limit. ``pid`` is the process adopted from the pid file, or 0.
    """

    status: int
    timed_out: bool
    output: bytes
    pid: int


@dataclass(frozen=True, slots=True)
class SlotState:
    """One slot as the monitor knows it; pid 0 while it has no process."""

    slot: int
    pid: int
    status: int | None
    drained: bool
    terminal: bool
    label: str


@dataclass(frozen=True, slots=True)
class MonitorState:
    """The answer to HELLO. ``daemon_starts`` is 1 for the first daemon of this monitor.

    ``services`` are the slots of long-lived helpers, which are nobody's container.
    """

    version: int
    slots: tuple[SlotState, ...]
    daemon_starts: int
    services: tuple[SlotState, ...] = ()


class Events(Protocol):
    """What the monitor tells unasked; everything is called on the thread that polls."""

    def bridge_up(self, generation: int) -> None:
        """Tell of a new connection."""

    def bridge_frame(self, generation: int, frame: bytes) -> None:
        """Hand over a frame of the host, header included, its size checked."""

    def bridge_unsent(self, frame: bytes) -> None:
        """Hand back an outgoing frame that was not wholly written."""

    def bridge_down(self, generation: int, reason: str) -> None:
        """Tell that a connection has ended. Frames sent to it from now on still come back."""

    def exited(self, slot: int, pid: int, status: int) -> None:
        """Tell that a slot's process was reaped: exit code, or minus the signal."""

    def drained(self, slot: int) -> None:
        """Tell that everything the process wrote is with the host; comes after ``exited``."""

    def stop(self, reason: str) -> None:
        """Ask to kill and delete all containers, then to call ``Link.finish``."""


class Link:
    """The connection to the monitor. Every method but ``poll`` may be called by any thread."""

    def __init__(self, sock: socket.socket, events: Events | None = None) -> None:
        self.events = events
        self._sock = sock
        self._pending: deque[tuple[int, list[Any]]] = deque()
        self._talk = Conversation(sock, self._on_event)
        self._slots = itertools.count(1)
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poller = select.epoll()
        self._poller.register(sock.fileno(), select.EPOLLIN)
        self._poller.register(self._wakeup, select.EPOLLIN)

    # The polling thread

    def poll(self, timeout_s: float | None) -> bool:
        """Receive and dispatch what is there, waiting at most so long; True if something came.

        Raises:
            MonitorError: the monitor is gone; nothing can be done without it.
        """
        self._talk.receiver = threading.get_ident()
        if self._pending and self.events is not None:
            self._dispatch()
            return True
        came = False
        for fd, _ in self._poller.poll(timeout_s):
            if fd == self._wakeup:
                os.eventfd_read(self._wakeup)
                came = True
            elif self._talk.receive():
                came = True
        if self._pending and self.events is not None:
            self._dispatch()
        return came

    def wake(self) -> None:
        """Make ``poll`` return."""
        os.eventfd_write(self._wakeup, 1)

    def close(self) -> None:
        """Close our end: the monitor takes it for the daemon's death."""
        self._talk.lose("closed")
        self._poller.close()
        os.close(self._wakeup)
        self._sock.close()

    # Calls

    def hello(self) -> MonitorState:
        """Greet the monitor, as the first of all calls; return what it has kept."""
        version, starts, items = self._talk.ask(wire.HELLO, wire.VERSION).fields
        slots: list[SlotState] = []
        services: list[SlotState] = []
        for item in items:
            slot, pid, status, drained, terminal, label, service = wire.decode_slot(item)
            state = SlotState(slot, pid, status, drained, terminal, os.fsdecode(label))
            (services if service else slots).append(state)
        highest = max((state.slot for state in (*slots, *services)), default=0)
        self._slots = itertools.count(1 + highest)
        return MonitorState(version, tuple(slots), starts, tuple(services))

    def new_slot(self) -> int:
        """Return a slot number that no daemon of this monitor's life has in use."""
        return next(self._slots)

    def open_bridge(self, target: str) -> None:
        """Connect the bridge to ``vsock:CID:PORT``, ``unix:PATH`` or ``stdio``, and reconnect for ever."""
        self._talk.ask(wire.OPEN_BRIDGE, _bytes(target))

    def set_stream_base(self, target: str) -> None:
        """Dial stdio port N at ``vsock:CID`` port N, or at ``unix:PATH``'s PATH_N."""
        self._talk.ask(wire.STREAM_BASE, _bytes(target))

    def send_frame(self, generation: int, frame: bytes) -> None:
        """Send a frame; it comes back as ``bridge_unsent`` if that connection is gone."""
        self._talk.tell(wire.SEND_FRAME, generation, frame)

    def close_bridge(self, generation: int) -> None:
        """Close this connection; the monitor makes another one."""
        self._talk.tell(wire.CLOSE_BRIDGE, generation)

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str = "/",
        stdin: bytes = b"",
        deadline_s: float,
        limit_bytes: int = 65536,
        slot: int = 0,
        pid_file: str = "",
        fds: Sequence[int] = (),
    ) -> Completed:
        """Run a program to completion; its process group is killed at the deadline.

        Without a slot its input is ``stdin`` and its output comes back. With one it gets
        the slot's pipes (a terminal, or a slot that was not opened: /dev/null), and after
        exit 0 the process named by ``pid_file`` is the slot's. ``fds`` become 3, 4, ...

        Raises:
            MonitorError: it could not be started, or left no process to adopt.
        """
        call = self._talk.ask(
            wire.RUN,
            _strings(argv),
            _environment(env),
            _bytes(cwd),
            stdin,
            _ns(deadline_s),
            limit_bytes,
            slot,
            _bytes(pid_file),
            fds=fds,
            timeout_s=_patience(deadline_s),
        )
        status, timed_out, output, pid = call.fields
        return Completed(status, bool(timed_out), output, pid)

    def open_slot(
        self, slot: int, *, terminal: bool = False, console_socket: str = "", label: str = ""
    ) -> None:
        """Make a slot: three pipes, or a listening console socket for a pty's master."""
        self._talk.ask(wire.OPEN_SLOT, slot, int(terminal), _bytes(console_socket), _bytes(label))

    def connect(
        self,
        slot: int,
        ports: tuple[int | None, int | None, int | None],
        *,
        redial: bool = False,
        tee_fd: int | None = None,
        discard: bool = False,
        deadline_s: float = 30,
    ) -> None:
        """Dial stdin, stdout and stderr in this order, all or none, and start the relays.

        An unused stdin is end of file, an unused output is read and dropped; ``discard``
        means all are unused. ``redial``: the outputs survive a vanished host.
        """
        self._talk.ask(
            wire.CONNECT,
            slot,
            *_ports(ports),
            int(redial),
            int(tee_fd is not None),
            int(discard),
            _ns(deadline_s),
            fds=() if tee_fd is None else (tee_fd,),
            timeout_s=_patience(deadline_s),
        )

    def spawn(
        self,
        slot: int,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str,
        terminal: bool = False,
        ports: tuple[int | None, int | None, int | None],
        discard: bool = False,
        cgroups: Sequence[str] = (),
        deadline_s: float = 30,
        label: str = "",
    ) -> int:
        """Start an external process in a new slot and return its pid.

        The host's connections are its descriptors 0 to 2 (unused: /dev/null), or it gets a
        pty of its own. ``cgroups`` are directories that it joins before it is executed.
        """
        call = self._talk.ask(
            wire.SPAWN,
            slot,
            _strings(argv),
            _environment(env),
            _bytes(cwd),
            int(terminal),
            *_ports(ports),
            int(discard),
            _strings(cgroups),
            _ns(deadline_s),
            _bytes(label),
            timeout_s=_patience(deadline_s),
        )
        pid: int = call.fields[0]
        return pid

    def service(
        self,
        slot: int,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        limits: Mapping[str, int],
        fds: Sequence[int] = (),
        label: str,
    ) -> int:
        """Start a program in a new slot that outlives this daemon, and return its pid.

        No streams; ``fds`` become 3, 4, ... Limits are of setrlimit(2): core, data, fsize,
        nofile.
        """
        bounds = [f"{name}={most}".encode() for name, most in limits.items()]
        call = self._talk.ask(
            wire.SERVICE, slot, _strings(argv), _environment(env), bounds, _bytes(label), fds=fds
        )
        pid: int = call.fields[0]
        return pid

    def kill(self, slot: int, signal: int) -> None:
        """Signal the slot's process.

        Raises:
            ProcessLookupError: it was reaped, or was never there.
        """
        try:
            self._talk.ask(wire.KILL, slot, signal)
        except MonitorError as error:
            if error.errno == errno.ESRCH:
                raise ProcessLookupError(errno.ESRCH, error.strerror) from error
            raise

    def resize(self, slot: int, rows: int, columns: int) -> None:
        """Set the terminal's size; once the terminal is closed, do nothing.

        Raises:
            MonitorError: ENOTTY if the slot has no terminal.
        """
        self._talk.ask(wire.RESIZE, slot, rows, columns)

    def stop_redial(self, slot: int) -> None:
        """From now on a vanished host ends the slot's outputs."""
        self._talk.tell(wire.STOP_REDIAL, slot)

    def release(self, slot: int) -> None:
        """Forget a slot whose exit status was acknowledged, and close all it has."""
        self._talk.tell(wire.RELEASE, slot)

    def dial(self, port: int, deadline_s: float) -> int:
        """Return a blocking, close-on-exec descriptor connected to a port of the host."""
        call = self._talk.ask(wire.DIAL, port, _ns(deadline_s), timeout_s=_patience(deadline_s))
        if len(call.fds) != 1:
            packets.close_all(call.fds)
            raise MonitorError(errno.EPROTO, "the monitor sent no descriptor")
        return call.fds[0]

    def finish(self, status: int = 0) -> None:
        """Everything is cleaned up: the monitor ends external processes and exits."""
        self._talk.tell(wire.FINISH, status)

    def set_log(self, format: str, level: str) -> None:
        """Set how the monitor logs: ``json`` or ``text``; debug, info, warning, error or off."""
        self._talk.tell(wire.CONFIGURE, format.encode(), level.encode(), -1, -1)

    def configure(self, *, max_inbound_bytes: int | None = None, drain_grace_s: float | None = None) -> None:
        """Set the largest inbound frame, and how long a stream outlives its process in silence."""
        largest = -1 if max_inbound_bytes is None else max_inbound_bytes
        grace = -1 if drain_grace_s is None else _ns(drain_grace_s)
        self._talk.tell(wire.CONFIGURE, b"", b"", largest, grace)

    def _on_event(self, op: int, fields: list[Any]) -> None:
        if op not in _EVENTS:
            raise wire.WireError(f"operation {op} is not for us")
        self._pending.append((op, fields))

    def _dispatch(self) -> None:
        assert self.events is not None
        while self._pending:
            op, fields = self._pending.popleft()
            _EVENTS[op](self.events, fields)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


_EVENTS: dict[int, Callable[[Events, list[Any]], None]] = {
    wire.BRIDGE_UP: lambda events, fields: events.bridge_up(fields[0]),
    wire.BRIDGE_FRAME: lambda events, fields: events.bridge_frame(fields[0], fields[1]),
    wire.BRIDGE_UNSENT: lambda events, fields: events.bridge_unsent(fields[0]),
    wire.BRIDGE_DOWN: lambda events, fields: events.bridge_down(fields[0], _text(fields[1])),
    wire.EXITED: lambda events, fields: events.exited(fields[0], fields[1], fields[2]),
    wire.DRAINED: lambda events, fields: events.drained(fields[0]),
    wire.STOP: lambda events, fields: events.stop(_text(fields[0])),
}


def _bytes(text: str) -> bytes:
    try:
        return os.fsencode(text)
    except UnicodeEncodeError as error:  # half of a surrogate pair, from JSON
        raise MonitorError(errno.EILSEQ, "characters that no argument, variable or path can hold") from error


def _strings(values: Sequence[str]) -> list[bytes]:
    return [_bytes(value) for value in values]


def _environment(env: Mapping[str, str]) -> list[bytes]:
    return [_bytes(f"{name}={value}") for name, value in env.items()]


def _ports(ports: tuple[int | None, int | None, int | None]) -> tuple[int, int, int]:
    stdin, stdout, stderr = (-1 if port is None else port for port in ports)
    return stdin, stdout, stderr


def _patience(deadline_s: float) -> float:
    """How long to wait for an answer that the monitor gives by its own deadline."""
    return min(deadline_s, _LONGEST_S) + GRACE_S


def _ns(seconds: float) -> int:
    return int(min(seconds, _LONGEST_S) * _NS)
