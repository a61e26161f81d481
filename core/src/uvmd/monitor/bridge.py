"""The bridge connection: dials, reconnects, moves frames. It knows headers, not bodies.

A frame is handed on whole, after its size was checked, and kept until its answer was wholly
written. An outgoing frame that was not wholly written when the connection ended goes back
to the daemon. The connection is the monitor's: it outlives every daemon.
"""

from __future__ import annotations

import _socket
import errno
import os

from uvmd.monitor import dial, kept
from uvmd.monitor.frames import DEFAULT_MAX_INBOUND_BYTES, HEADER_BYTES, FrameReader
from uvmd.monitor.loop import EDGE, ERROR, HANGUP, IN, NO_MEMORY, OUT, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from typing import Protocol

    from uvmd.monitor.kept import Kept, Request
    from uvmd.monitor.log import Log

    class Listener(Protocol):
        """What the bridge tells."""

        def bridge_up(self, generation: int) -> None: ...
        def bridge_frame(self, request: Request, frame: bytes) -> None: ...
        def bridge_unsent(self, request: int, slot: int, frame: bytes) -> None: ...
        def bridge_down(self, generation: int, reason: str) -> None: ...
        def bridge_finished(self, reason: str) -> None: ...
        def daemon_waiting_bytes(self) -> int: ...
else:
    from _collections import deque  # the package around it costs the monitor 0.3 MiB


RETRY_S = 0.1

_DIAL_DEADLINE_S = 10.0
_BURST = 16

# A host that sends requests and does not read answers is not read either.
_HOST_HIGH_BYTES = 4 * 1024 * 1024


class Bridge:
    """At most one connection at a time; each has a generation, counted from 1."""

    def __init__(self, loop: Loop, log: Log, listener: Listener, requests: Kept) -> None:
        self._loop = loop
        self._log = log
        self._listener = listener
        self._kept = requests
        self.max_inbound_bytes = DEFAULT_MAX_INBOUND_BYTES
        self.generation = 0
        #: A number of the daemon's for the next one; by generation while it has open requests.
        self._states: dict[int, int] = {}
        self._target = ""
        self._dialling: dial.Dial | None = None
        self._last_failure = ""
        self._sock: _socket.socket | None = None
        self._in = self._out = -1
        self._reader = FrameReader()
        self._queue: deque[tuple[bytes, int, int]] = deque()
        self._queued_bytes = 0
        self._written = 0
        # The socket is watched for room, which something waits for.
        self._blocked = False
        self._paused = False
        # The host has closed, or half closed, its end.
        self._ending = False
        self._stdio_used = False
        self._null = -1

    @property
    def up(self) -> bool:
        """True while a connection is there."""
        return self._in >= 0

    @property
    def flushed(self) -> bool:
        """True when nothing waits to be written."""
        return not self._queue

    def open(self, target: str) -> None:
        """Connect, and from now on reconnect, to a target ("stdio": descriptors 0 and 1, once).

        A connection to it that is there stays.

        Raises:
            ValueError: no such target.
            OSError: all descriptors are in use.
        """
        if target and target == self._target:
            return
        if target != "stdio":
            dial.parse_target(target)
        elif not self._stdio_used:
            # While it can be: when the host goes there may be no descriptor left.
            self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self.shut("opened anew")
        self._target = target
        if target == "stdio":
            self._open_stdio()
        else:
            self._connect()

    def shut(self, reason: str) -> None:
        """Close the connection and do not make another one."""
        self._target = ""
        if self._dialling is not None:
            self._dialling.cancel()
            self._dialling = None
        if self.up:
            self._lose(reason)

    def close(self, generation: int) -> None:
        """Close this connection if it is still that one; another one is made."""
        if self.up and generation == self.generation:
            self._lose("closed by the daemon")

    def send(self, generation: int, frame: bytes, request: int = 0, slot: int = 0, state: int = -1) -> None:
        """Write a frame after those before it, or hand it back; generation 0: keep it.

        ``request`` is what it answers, ``slot`` whose end it tells: until it is written the
        next daemon gets it back. ``state`` is what that one is told of the connection.
        """
        if request:
            self._kept.answered(request, frame, slot)
        elif slot:
            self._kept.notices[slot] = frame
        if not self.up or generation != self.generation:
            if generation:
                self._listener.bridge_unsent(request, slot, frame)
            self.resume()
            return
        if state >= 0:
            self._states[generation] = state
        self._queue.append((frame, request, slot))
        self._queued_bytes += len(frame)
        if len(self._queue) == 1:
            self._write()

    def state(self, generation: int) -> int:
        """Return what a daemon has said of a connection; 0: nothing."""
        return self._states.get(generation, 0)

    def unsent(self) -> list[tuple[int, int, bytes]]:
        """Return the kept frames that nobody is writing: request, slot, frame."""
        # An answer is known by its request alone: the slot whose end it tells may have several.
        answers = {request for _, request, _ in self._queue}
        notices = {slot for _, request, slot in self._queue if not request}
        found = [
            (one.number, one.slot, one.answer)
            for one in self._kept
            if one.answer is not None and one.number not in answers
        ]
        return found + [(0, slot, frame) for slot, frame in self._kept.notices.items() if slot not in notices]

    def set_max_inbound(self, max_bytes: int) -> None:
        """Set the largest frame that is taken from the host, header included."""
        self.max_inbound_bytes = self._reader.max_bytes = max(HEADER_BYTES, max_bytes)

    def resume(self) -> None:
        """Read on if the daemon has caught up."""
        if self._paused and not self._must_pause():
            self._paused = False
            self._loop.soon(self._go_on)

    def _go_on(self) -> None:
        if self.up:
            self._take(self._loop.room[:0])  # what has waited behind a Negotiate
            self._read()

    def _connect(self) -> None:
        self._dialling = dial.Dial(
            self._loop,
            dial.parse_target(self._target),
            self._connected,
            self._refused,
            deadline_s=_DIAL_DEADLINE_S,
        )

    def _connected(self, sock: _socket.socket) -> None:
        self._dialling = None
        self._last_failure = ""
        self._sock = sock
        self._in = self._out = sock.fileno()
        self._ending = self._blocked = False
        self._loop.watch(self._in, IN | HANGUP | EDGE, self._on_ready)
        self._begin()

    def _open_stdio(self) -> None:
        if self._stdio_used:
            self._finish("end of file")
            return
        self._stdio_used = True
        self._in, self._out = 0, 1
        for fd in (0, 1):
            os.set_blocking(fd, False)
        self._loop.watch(self._in, IN | EDGE, self._on_ready)
        self._loop.watch(self._out, OUT | EDGE, self._on_ready)
        self._begin()

    def _begin(self) -> None:
        self.generation += 1
        self._reader = FrameReader(self.max_inbound_bytes)
        self._paused = False
        self._kept.begin(self.generation)
        needed = {one.generation for one in self._kept}
        self._states = {one: state for one, state in self._states.items() if one in needed}
        self._log.info("the bridge is up", target=self._target, generation=self.generation)
        self._listener.bridge_up(self.generation)

    def _refused(self, error: OSError) -> None:
        self._dialling = None
        reason = str(error.strerror)
        # Every 100 ms for ever; only a change is worth a line.
        if reason != self._last_failure:
            self._last_failure = reason
            self._log.warning("the bridge cannot connect, trying on", error=reason)
        self._loop.call_later(RETRY_S, self._reconnect)

    def _reconnect(self) -> None:
        if self._target and self._dialling is None and not self.up:
            self._connect()

    def _on_ready(self, events: int) -> None:
        if events & OUT:
            self._write()
        if events & (HANGUP | ERROR):
            self._ending = True
        if events & (IN | HANGUP | ERROR):
            self._read()

    def _negotiated(self) -> bool:
        return self._states.get(self.generation, 0) > 0

    def _waits_for_negotiate(self) -> bool:
        """Return whether what came behind it has to wait until what older connections left can go."""
        return self._kept.full and self._kept.recent_bytes > 0 and not self._negotiated()

    def _must_pause(self) -> bool:
        limit = kept.LOW_BYTES if self._paused else kept.HIGH_BYTES
        # What older connections have left goes once this one has negotiated, and not before.
        counted = self._kept.bytes if self._negotiated() else self._kept.recent_bytes
        return (
            counted > limit
            or self._waits_for_negotiate()
            or self._kept.open + len(self._queue) > (kept.FEWER if self._paused else kept.MANY)
            or self._listener.daemon_waiting_bytes() > limit
            or self._queued_bytes > _HOST_HIGH_BYTES
        )

    def _read(self) -> None:
        generation = self.generation
        for _ in range(_BURST):
            if not self.up or generation != self.generation:
                return
            if self._must_pause():
                self._paused = True
                if self._ending:  # nobody is there to make room
                    self._lose("end of file")
                return
            try:
                count = os.readv(self._in, [self._loop.room])
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in NO_MEMORY:
                    self._loop.call_later(RETRY_S, self._read)
                else:
                    self._lose(f"read: {error.strerror}")
                return
            if not count:
                self._lose("end of file")
                return
            self._take(self._loop.room[:count])
            # A short read from a socket is the end of what is there: saves the call that
            # says EAGAIN. What has come since makes a new edge, but an end of file that came
            # with the data has had its edge.
            if count < len(self._loop.room) and self._sock is not None and not self._ending:
                return
        self._loop.soon(self._read)

    def _take(self, data: memoryview) -> None:
        self._reader.feed(data)
        generation = self.generation
        try:
            while not self._waits_for_negotiate() and (frame := self._reader.next_frame()) is not None:
                if not self._negotiated() and not self._kept.leaves_room(frame):
                    self._lose("too much of earlier connections waits for one that negotiates")
                    return
                self._listener.bridge_frame(self._kept.add(generation, frame), frame)
            self._paused = self._paused or self._waits_for_negotiate()
        except ValueError as error:
            self._log.error("bad frame header, closing the bridge connection", error=str(error))
            self._lose(str(error))

    def _write(self) -> None:
        while self._queue and self.up:
            frame, request, slot = self._queue[0]
            try:
                self._written += os.write(self._out, memoryview(frame)[self._written :])
            except BlockingIOError:
                self._wait_for_room(True)
                return
            except OSError as error:
                if error.errno in NO_MEMORY:  # the host would take the end for that of all containers
                    self._loop.call_later(RETRY_S, self._write)
                else:
                    self._lose(f"write: {error.strerror}")
                return
            if self._written == len(frame):
                self._queue.popleft()
                self._queued_bytes -= len(frame)
                self._written = 0
                if request:
                    self._kept.forget(request)
                elif slot:
                    self._kept.notices.pop(slot, None)
        self._wait_for_room(False)
        self.resume()

    def _wait_for_room(self, waits: bool) -> None:
        # Not always: a host makes room with each answer that it reads, and would wake us for nothing.
        if self._sock is not None and waits is not self._blocked:
            self._blocked = waits
            self._loop.change(self._in, IN | HANGUP | EDGE | (OUT if waits else 0))

    def _lose(self, reason: str) -> None:
        stdio = self._sock is None
        if self._sock is not None:
            self._loop.unwatch(self._in)
            self._sock.close()
            self._sock = None
        else:
            self._release_stdio()
        self._in = self._out = -1
        unsent = list(self._queue)
        self._queue.clear()
        self._queued_bytes = self._written = 0
        self._log.info("the bridge is down", generation=self.generation, reason=reason, unsent=len(unsent))
        for frame, request, slot in unsent:
            self._listener.bridge_unsent(request, slot, frame)
        self._listener.bridge_down(self.generation, reason)
        if stdio:
            self._finish(reason)
        elif self._target:
            self._loop.call_later(RETRY_S, self._reconnect)

    def _release_stdio(self) -> None:
        # The numbers stay taken: nothing that opens a file later may become stdin.
        for fd in (0, 1):
            self._loop.unwatch(fd)
            try:
                os.set_blocking(fd, True)
            except OSError as error:
                if error.errno != errno.EBADF:
                    raise
            os.dup2(self._null, fd, inheritable=False)
        os.close(self._null)

    def _finish(self, reason: str) -> None:
        self._target = ""
        self._listener.bridge_finished(reason)
