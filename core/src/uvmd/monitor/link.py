"""The daemon's end of the link: ask the monitor from any thread, hear of it on one at a time.

One thread calls ``poll`` in a loop; it receives, wakes the threads whose answers came, and
calls ``Events``; another one may do so beside it (``polling.py``). A call from the very
thread that does so receives by itself until its answer is there; events that arrive
meanwhile wait for the next ``poll``.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from uvmd.monitor import packets, wire
from uvmd.monitor.conversation import GRACE_S, Conversation, MonitorError, Step
from uvmd.monitor.polling import Polling, Told
from uvmd.monitor.reports import Completed, Earlier, Events, MonitorState, SlotState

__all__ = ["Completed", "Earlier", "Events", "Link", "MonitorError", "MonitorState", "SlotState"]

_NS = 1_000_000_000
_LONGEST_S = 1e6
# What runs for a request has a deadline of its own, which the monitor keeps.
_LONGEST_CALL_S = 300.0


class Link:
    """The connection to the monitor. Every method but ``poll`` may be called by any thread."""

    def __init__(self, sock: socket.socket, events: Events | None = None) -> None:
        self.events = events
        #: Says for which request of the host the calling thread works, or 0.
        self.request_of: Callable[[], int] = lambda: 0
        #: Slots that earlier daemons made, by the request for which they did.
        self._earlier: dict[int, list[int]] = {}
        self._sock = sock
        self._talk = Conversation(sock, self._on_event)
        self._polling = Polling(sock, self._talk)
        self._slots = itertools.count(1)

    def note_steps(self, step: Step) -> None:
        """Have every question to the monitor noted as a step of what the thread does."""
        self._talk.step = step

    # The polling threads

    def poll(self, timeout_s: float | None) -> bool:
        """Receive and dispatch what comes next, waiting at most so long; True if something came.

        Raises:
            MonitorError: the monitor is gone; nothing can be done without it.
        """
        return self._polling.poll(timeout_s, self.events)

    def poll_beside(self) -> bool:
        """As ``poll``, for a thread that has more to do; False when there is no monitor any more."""
        assert self.events is not None
        try:
            self._polling.poll_beside(self.events)
        except MonitorError:  # the other thread hears of it as well
            self._polling.end_beside()
            return False
        return True

    def wake(self) -> None:
        """Make ``poll`` return."""
        self._polling.wake()

    def close(self) -> None:
        """Close our end: the monitor takes it for the daemon's death."""
        self._polling.close()

    # Calls

    def hello(self) -> MonitorState:
        """Greet the monitor, as the first of all calls; return what it has kept."""
        version, starts, states, requests, highest = self._talk.ask(wire.HELLO, wire.VERSION).fields
        slots: list[SlotState] = []
        services: list[SlotState] = []
        for item in wire.decode_slots(states):
            slot, pid, status, drained, terminal, label, service, request, told, signal = wire.decode_slot(
                item
            )
            streams = (drained, terminal, os.fsdecode(label))
            state = SlotState(slot, pid, status, *streams, request, told, signal)
            (services if service else slots).append(state)
        self._slots = itertools.count(1 + highest)
        numbers = frozenset(wire.decode_numbers(requests))
        self._earlier = {}
        for state in slots:
            if state.request in numbers:
                self._earlier.setdefault(state.request, []).append(state.slot)
        return MonitorState(version, tuple(slots), starts, tuple(services), numbers)

    @property
    def monitor_pid(self) -> int:
        """The monitor's process: who made the socket (unix(7), SO_PEERCRED)."""
        size = struct.calcsize("iII")
        pid: int = struct.unpack("iII", self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[0]
        return pid

    def started_as(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Say how a daemon is started that the monitor has not started itself.

        A monitor that is told to stop while there is none starts its last one so.
        """
        self._talk.tell(wire.STARTED_AS, _strings(argv), _environment(env))

    def new_slot(self) -> int:
        """Return a slot number that nobody has in use.

        For a request that an earlier daemon had begun: the slot that it had made for it.
        """
        left = self._earlier.get(self.request_of())
        return left.pop(0) if left else next(self._slots)

    def skip_slots(self, highest: int) -> None:
        """Give no number up to ``highest`` to anybody anew: an earlier daemon's records name it.

        The monitor has not heard of a slot that was not opened yet. Before the first request.
        """
        self._slots = itertools.count(max(next(self._slots), 1 + highest))

    def earlier_slots(self, request: int) -> list[int]:
        """Return, once, the slots that earlier daemons made for a request and nobody took up."""
        return self._earlier.pop(request, [])

    def open_bridge(self, target: str) -> None:
        """Connect the bridge to ``vsock:CID:PORT``, ``unix:PATH`` or ``stdio``, and reconnect for ever.

        A connection to that target that is there stays.
        """
        self._talk.ask(wire.OPEN_BRIDGE, _bytes(target))

    def set_stream_base(self, target: str) -> None:
        """Dial stdio port N at ``vsock:CID`` port N, or at ``unix:PATH``'s PATH_N."""
        self._talk.ask(wire.STREAM_BASE, _bytes(target))

    def send_frame(
        self, generation: int, frame: bytes, request: int = 0, slot: int = 0, state: int = -1
    ) -> None:
        """Send a frame; it comes back as ``bridge_unsent`` if that connection is gone.

        ``request`` is what it answers, ``slot`` whose end it tells; ``state`` (0 or more) is
        what the next daemon is to know of the connection. With generation 0 nothing is sent:
        the monitor keeps the frame for the next daemon, should this one die with it.
        """
        self._talk.tell(wire.SEND_FRAME, generation, request, slot, state, frame)

    def forget_request(self, request: int) -> None:
        """There will be no answer to this request."""
        self._talk.tell(wire.FORGET, request)

    def note(self, name: str, value: bytes = b"") -> None:
        """Have the monitor keep a note beside the request for which the calling thread works."""
        if request := self.request_of():
            self._talk.tell(wire.NOTE, request, name.encode(), value)

    def await_request(self, request: int) -> Earlier:
        """Wait until nothing runs for a request any more; return what is known of it."""
        done, notes = self._talk.ask(wire.AWAIT, request, timeout_s=_LONGEST_CALL_S).fields
        names = frozenset(_text(name).partition(" ")[2] for name in done)
        return Earlier(names, dict(zip(map(_text, notes[::2]), notes[1::2], strict=True)))

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
        once: str = "",
    ) -> Completed:
        """Run a program to completion; its process group is killed at the deadline.

        Without a slot its input is ``stdin`` and its output comes back. With one it gets
        the slot's pipes (a terminal, or a slot that was not opened: /dev/null), and after
        exit 0 the process named by ``pid_file`` is the slot's. ``fds`` become 3, 4, ...
        ``once``: a name under which it is run once for a request of the host; a later daemon
        that asks again gets the outcome.

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
            *self._for(once),
            fds=fds,
            timeout_s=_patience(deadline_s),
        )
        status, timed_out, output, pid = call.fields
        return Completed(status, bool(timed_out), output, pid)

    def open_slot(
        self, slot: int, *, terminal: bool = False, console_socket: str = "", label: str = ""
    ) -> None:
        """Make a slot: three pipes, or a listening console socket for a pty's master."""
        facts = (slot, int(terminal), _bytes(console_socket), _bytes(label))
        self._talk.ask(wire.OPEN_SLOT, *facts, *self._for(f"{slot}"))

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
            *self._for(f"{slot}"),
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
            *self._for(f"{slot}"),
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
            self._talk.ask(wire.KILL, slot, signal, *self._for(f"{slot} {signal}"))
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
        for left in list(self._earlier.values()):  # other threads settle theirs
            if slot in left:
                left.remove(slot)
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

    def _for(self, name: str) -> tuple[int, bytes]:
        """Return the last fields of what is done for a request: which, and what makes it once."""
        request = self.request_of()
        return request, name.encode() if request else b""

    def _on_event(self, op: int, fields: list[Any]) -> None:
        if op not in _EVENTS:
            raise wire.WireError(f"operation {op} is not for us")
        self._polling.heard(_EVENTS[op], fields)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


_EVENTS: dict[int, Told] = {
    wire.BRIDGE_UP: lambda events, fields: events.bridge_up(*fields),
    wire.BRIDGE_FRAME: lambda events, fields: events.bridge_frame(*fields),
    wire.BRIDGE_AGAIN: lambda events, fields: events.bridge_again(*fields),
    wire.BRIDGE_UNSENT: lambda events, fields: events.bridge_unsent(*fields),
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
