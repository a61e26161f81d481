"""The monitor's end of the link to the daemon: packets in, packets out, never blocking.

What the daemon has not read yet is kept here, and counted: the bridge stops being read
while too much of it waits.
"""

from __future__ import annotations

import _socket
import os

from uvmd.monitor import packets, wire
from uvmd.monitor.loop import ERROR, HANGUP, IN, OUT, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Sequence
    from typing import Any
else:
    from _collections import deque  # the package around it costs the monitor 0.3 MiB

_BURST = 32
_RETRY_S = 0.1


class Channel:
    """One daemon's connection. After ``on_lost`` was called it is silent for ever.

    ``on_packet(op, tag, fields, fds)`` owns the descriptors that it removes from the
    list; the others are closed.
    """

    def __init__(
        self,
        loop: Loop,
        sock: _socket.socket,
        on_packet: Callable[[int, int, list[Any], list[int]], None],
        on_lost: Callable[[str], None],
        on_room: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._on_packet = on_packet
        self._on_lost = on_lost
        self._on_room = on_room
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        self._queued_bytes = 0
        self._untaken_bytes = 0
        self._broken = False
        self._spare = packets.Spare()
        self.open = True
        self.greeted = False
        sock.setblocking(False)
        loop.watch(sock.fileno(), IN, self._on_ready)

    @property
    def waiting_bytes(self) -> int:
        """What the daemon still has to read, large packets in flight included."""
        return self._queued_bytes + self._untaken_bytes

    def send(
        self, op: int, tag: int, *fields: int | bytes | Sequence[bytes], fds: Sequence[int] = ()
    ) -> None:
        """Send a packet, now or when there is room. The descriptors stay the caller's."""
        if not self.open or self._broken:
            return
        packet = wire.encode(op, tag, *fields)
        if not self._queue and self._put(packet, fds):
            return
        if self._broken:
            return
        if fds:
            self._spare.free()  # until the next packet
        self._queue.append((packet, [os.dup(fd) for fd in fds]))
        self._queued_bytes += len(packet)

    def drain(self) -> None:
        """Take what a daemon that has exited still sent: it may well be its FINISH."""
        while self.open and self._receive():
            pass

    def close(self) -> None:
        """Close the connection and forget what waits."""
        if not self.open:
            return
        self.open = False
        self._loop.unwatch(self._sock.fileno())
        self._sock.close()
        self._spare.free()
        for _, fds in self._queue:
            packets.close_all(fds)
        self._queue.clear()
        self._queued_bytes = self._untaken_bytes = 0

    def _put(self, packet: bytes, fds: Sequence[int]) -> bool:
        """Send a packet; False if it must wait: for room, or for descriptors or memory to send it with."""
        large, events = len(packet) > wire.MAX_INLINE_BYTES, IN
        if large:
            self._spare.free()
        try:
            packets.send(self._sock, packet, fds, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            events = IN | OUT
        except OSError as error:
            if error.errno in packets.GONE:
                # What it still sent counts, so the end is for the reading side to find.
                self._broken = True
            else:
                self._loop.call_later(_RETRY_S, self._flush)
        else:
            if large:
                self._untaken_bytes += len(packet)
            return True
        finally:
            self._spare.hold()
        self._loop.change(self._sock.fileno(), events)
        return False

    def _on_ready(self, events: int) -> None:
        if events & OUT:
            self._flush()
        if events & (IN | HANGUP | ERROR):
            self._receive()

    def _flush(self) -> None:
        while self._queue and self.open:
            packet, fds = self._queue[0]
            if not self._put(packet, fds):
                return
            self._queue.popleft()
            self._queued_bytes -= len(packet)
            packets.close_all(fds)
        if self.open:
            self._loop.change(self._sock.fileno(), IN)
            self._on_room()

    def _receive(self) -> bool:
        """Take a few packets; False when there are no more for now."""
        for _ in range(_BURST):
            if not self.open:
                return False
            try:
                packet, fds = self._next()
            except BlockingIOError:
                return False
            except ConnectionResetError:
                # It died with packets of ours unread: the kernel says that once, before it hands
                # out what the daemon had sent until then.
                continue
            except (OSError, wire.WireError) as error:
                self._lose(str(error))
                return False
            if not packet:
                self._lose("end of file")
                packets.close_all(fds)
                return False
            try:
                self._dispatch(packet, fds)
            except wire.WireError as error:
                self._lose(str(error))
            finally:
                packets.close_all(fds)
        return True

    def _next(self) -> tuple[bytes, list[int]]:
        try:
            if packets.brings_descriptors(self._sock):
                self._spare.free()
            return packets.receive(self._sock, self._loop.room)
        finally:
            self._spare.hold()

    def _dispatch(self, packet: bytes, fds: list[int]) -> None:
        op, tag, fields = wire.decode(packet)
        if op == wire.LARGE:
            if not fds:
                raise wire.WireError("a large packet without its memfd")
            memfd = fds.pop(0)
            try:
                op, tag, fields = wire.decode(packets.read_large(memfd, fields[0]))
            finally:
                os.close(memfd)
        if op == wire.TAKEN:
            self._untaken_bytes = max(0, self._untaken_bytes - fields[0])
            self._on_room()
        elif wire.HELLO <= op < wire.REPLY and (self.greeted or op == wire.HELLO):
            self._on_packet(op, tag, fields, fds)
        else:
            raise wire.WireError(f"operation {op} is not for us, or not now")

    def _lose(self, reason: str) -> None:
        if self.open:
            self.close()
            self._on_lost(reason)
