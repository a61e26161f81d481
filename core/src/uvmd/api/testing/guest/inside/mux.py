"""Many byte streams over one: the ends of a mirror, inside and outside the guest, use this.

Standard library only: the file is also copied into the guest. A frame is a kind, a channel
and a length, then so many bytes. Only the guest opens channels. A channel's sender may have
WINDOW bytes under way; what the receiver has handed on is acknowledged, so that a reader who
stops stops its writer, not the other channels.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from collections.abc import Callable

HEADER = struct.Struct("<BII")
RESET, LISTEN, FORGET, OPEN, DATA, END, CLOSE, TAKEN = range(8)

WINDOW = 1 << 18
CHUNK = 1 << 15
#: Local sockets are not read while so much waits for the link.
LINK_LIMIT = 1 << 20


def encode(kind: int, channel: int = 0, body: bytes = b"") -> bytes:
    """Return one frame."""
    return HEADER.pack(kind, channel, len(body)) + body


class Decoder:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """Take bytes; return the frames that are whole now."""
        self._buffer += data
        frames = []
        while len(self._buffer) >= HEADER.size:
            kind, channel, length = HEADER.unpack_from(self._buffer)
            end = HEADER.size + length
            if len(self._buffer) < end:
                break
            frames.append((kind, channel, bytes(self._buffer[HEADER.size : end])))
            del self._buffer[:end]
        return frames


class Channel:
    """One stream: a local socket, what waits to be written to it, and what it may still send."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.pending = bytearray()
        self.credit = WINDOW
        self.untold = 0
        self.read_ended = False
        self.write_ends = False
        self.write_ended = False


class Mux:
    """Channels over a link.

    Args:
        link: a descriptor of ours that can be polled, read and written.
        control: called with (kind, body) for RESET, LISTEN, FORGET, and with (OPEN, name), where
            it returns a connected socket or None.
        before: called after each wait, before anything is read: what it sends goes first.
    """

    def __init__(
        self,
        link: int,
        control: Callable[[int, bytes], socket.socket | None],
        before: Callable[[], None] | None = None,
    ) -> None:
        self._link = link
        self._control = control
        self._before = before
        self._decoder = Decoder()
        self._outgoing = bytearray()
        self._channels: dict[int, Channel] = {}
        self._by_fd: dict[int, int] = {}
        self._watched: dict[int, Callable[[], None]] = {}
        self._poll = select.poll()
        self._next = 1
        os.set_blocking(link, False)

    # -- for the owner

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call ``callback()`` whenever a descriptor is readable."""
        self._watched[fd] = callback
        self._poll.register(fd, select.POLLIN)

    def forget(self, fd: int) -> None:
        """Undo ``watch``."""
        del self._watched[fd]
        self._poll.unregister(fd)

    def open(self, sock: socket.socket, name: str) -> None:
        """Make a channel for a socket that somebody connected to ``name``."""
        number = self._next
        self._next += 1
        self._add(number, sock)
        self.send(OPEN, number, name.encode())

    def send(self, kind: int, channel: int = 0, body: bytes = b"") -> None:
        """Queue a frame."""
        self._outgoing += encode(kind, channel, body)

    def reset(self) -> None:
        """Close every channel."""
        for number in list(self._channels):
            self._drop(number)

    def step(self, timeout_s: float) -> bool:
        """Wait for news and deal with it. False: the link is gone."""
        self._interests()
        ready = self._poll.poll(timeout_s * 1000)
        if self._before is not None:
            self._before()
        for fd, events in ready:
            if fd == self._link:
                if not self._serve_link(events):
                    return False
            elif fd in self._watched:
                self._watched[fd]()
            elif fd in self._by_fd:
                self._serve_channel(self._by_fd[fd], events)
        self._write_link()
        return True

    # -- inside

    def _interests(self) -> None:
        self._poll.register(self._link, select.POLLIN | (select.POLLOUT if self._outgoing else 0))
        room = len(self._outgoing) < LINK_LIMIT
        for channel in self._channels.values():
            wanted = select.POLLIN if room and channel.credit > 0 and not channel.read_ended else 0
            wanted |= select.POLLOUT if channel.pending else 0
            self._poll.register(channel.sock, wanted)

    def _serve_link(self, events: int) -> bool:
        if events & select.POLLIN:
            try:
                data = os.read(self._link, CHUNK)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            for kind, number, body in self._decoder.feed(data):
                self._take(kind, number, body)
        elif events & (select.POLLHUP | select.POLLERR):
            return False
        return True

    def _write_link(self) -> None:
        while self._outgoing:
            try:
                written = os.write(self._link, self._outgoing[:CHUNK])
            except BlockingIOError:
                return
            del self._outgoing[:written]

    def _take(self, kind: int, number: int, body: bytes) -> None:
        if kind in (RESET, LISTEN, FORGET):
            self._control(kind, body)
            return
        if kind == OPEN:
            sock = self._control(kind, body)
            if sock is None:
                self.send(CLOSE, number)
            else:
                self._add(number, sock)
            return
        channel = self._channels.get(number)
        if channel is None:
            return  # Closed here while the frame was under way.
        if kind == DATA:
            channel.pending += body
            self._flush(number, channel)
        elif kind == END:
            channel.write_ends = True
            self._flush(number, channel)
        elif kind == TAKEN:
            channel.credit += int.from_bytes(body, "little")
        elif kind == CLOSE:
            self._drop(number)

    def _add(self, number: int, sock: socket.socket) -> None:
        self._channels[number] = Channel(sock)
        self._by_fd[sock.fileno()] = number

    def _drop(self, number: int) -> None:
        channel = self._channels.pop(number)
        with contextlib.suppress(OSError):
            # What has come so far still belongs to the reader.
            channel.sock.send(channel.pending)
        with contextlib.suppress(KeyError):
            self._poll.unregister(channel.sock)
        del self._by_fd[channel.sock.fileno()]
        channel.sock.close()

    def _close(self, number: int) -> None:
        self.send(CLOSE, number)
        self._drop(number)

    def _serve_channel(self, number: int, events: int) -> None:
        channel = self._channels[number]
        if events & select.POLLOUT:
            self._flush(number, channel)
            if number not in self._channels:
                return
        # POLLHUP: both directions are closed (a half-closed socket shows none). What is left to be
        # read is read whatever the credit; it is no more than a socket's buffer.
        if not channel.read_ended:
            self._read(number, channel, events)
        elif events & (select.POLLHUP | select.POLLERR):
            self._close(number)

    def _read(self, number: int, channel: Channel, events: int) -> None:
        try:
            data = channel.sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._close(number)
            return
        if data:
            channel.credit -= len(data)
            self.send(DATA, number, data)
        elif events & select.POLLHUP:
            self._close(number)
        else:
            channel.read_ended = True
            self.send(END, number)
            self._close_when_done(number, channel)

    def _flush(self, number: int, channel: Channel) -> None:
        try:
            while channel.pending:
                sent = channel.sock.send(channel.pending)
                del channel.pending[:sent]
                channel.untold += sent
        except BlockingIOError:
            pass
        except OSError:
            self._close(number)
            return
        if channel.untold >= CHUNK or (channel.untold and not channel.pending):
            self.send(TAKEN, number, channel.untold.to_bytes(4, "little"))
            channel.untold = 0
        if channel.write_ends and not channel.pending and not channel.write_ended:
            channel.write_ended = True
            with contextlib.suppress(OSError):
                channel.sock.shutdown(socket.SHUT_WR)
            self._close_when_done(number, channel)

    def _close_when_done(self, number: int, channel: Channel) -> None:
        if channel.read_ended and channel.write_ended:
            self._drop(number)
