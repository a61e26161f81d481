"""Asking the monitor: tags, answers, and who receives; the link's lower half.

Any thread may ask. One thread receives for all; if it asks itself, it receives until its
own answer is there.
"""

from __future__ import annotations

import errno
import itertools
import os
import select
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from uvmd.monitor import packets, wire

# The monitor keeps every deadline itself; this only bounds a monitor that hangs.
GRACE_S = 30.0

#: As a plain number: adding flags of an enumeration takes longer than the call.
_NOW = int(socket.MSG_DONTWAIT)

#: Notes what is done in its block, by a kind and what.
Step = Callable[[str, str], AbstractContextManager[None]]


class MonitorError(OSError):
    """What the monitor says of a call that failed: errno and text."""


class Call:
    """One request under way."""

    __slots__ = ("answered", "error", "fds", "fields")

    def __init__(self) -> None:
        self.answered = threading.Lock()
        self.answered.acquire()
        self.error: MonitorError | None = None
        self.fields: list[Any] = []
        self.fds: list[int] = []


class Conversation:
    """The socket to the monitor; packets that are no answers go to ``on_event``."""

    def __init__(self, sock: socket.socket, on_event: Callable[[int, list[Any]], None]) -> None:
        self.receiver = threading.get_ident()
        #: Notes a question and its answer as a step of the request that the thread serves.
        self.step: Step = lambda kind, what: nullcontext()
        self._sock = sock
        self._sock.setblocking(True)
        self._room = memoryview(bytearray(wire.ROOM_BYTES))
        self._on_event = on_event
        self._sending = threading.Lock()
        self._tags = itertools.count(1)
        self._calls: dict[int, Call] = {}
        self._gone: MonitorError | None = None

    def ask(
        self,
        op: int,
        *fields: int | bytes | Sequence[bytes],
        fds: Sequence[int] = (),
        timeout_s: float = GRACE_S,
    ) -> Call:
        """Send a request and wait for its answer.

        Raises:
            MonitorError: what the monitor says, or the link is broken.
        """
        with self.step("monitor", wire.WORDS.get(op, "")):
            return self._ask(op, *fields, fds=fds, timeout_s=timeout_s)

    def _ask(
        self, op: int, *fields: int | bytes | Sequence[bytes], fds: Sequence[int], timeout_s: float
    ) -> Call:
        tag = next(self._tags) & 0xFFFFFFFF
        call = Call()
        self._calls[tag] = call
        try:
            self.tell(op, *fields, tag=tag, fds=fds)
            if threading.get_ident() == self.receiver:
                self._receive_until(call, timeout_s)
            elif not call.answered.acquire(timeout=timeout_s):
                raise MonitorError(errno.ETIMEDOUT, "the monitor did not answer")
        finally:
            self._calls.pop(tag, None)
        if call.error is not None:
            raise call.error
        return call

    def tell(
        self, op: int, *fields: int | bytes | Sequence[bytes], tag: int = 0, fds: Sequence[int] = ()
    ) -> None:
        """Send a packet.

        Raises:
            MonitorError: it is too large, or the link is broken.
        """
        try:
            packet = wire.encode(op, tag, *fields)
            if len(fds) > wire.MAX_DESCRIPTORS:
                raise MonitorError(errno.EINVAL, f"{len(fds)} descriptors, allowed {wire.MAX_DESCRIPTORS}")
            with self._sending:
                if self._gone is not None:
                    raise self._gone
                packets.send(self._sock, packet, fds)
        except MonitorError:
            raise
        except wire.WireError as error:
            raise MonitorError(errno.EMSGSIZE, str(error)) from error
        except OSError as error:
            raise MonitorError(error.errno, f"the link to the monitor: {error.strerror}") from error

    def receive(self) -> bool:
        """Take one packet, if one is there, without waiting; True if it was.

        Raises:
            MonitorError: the monitor is gone.
        """
        try:
            packet, fds = packets.receive(self._sock, self._room, _NOW)
            if not packet:
                self.lose("the monitor has ended")
                raise MonitorError(errno.EPIPE, "the monitor has ended")
            self._take(packet, fds)
        except BlockingIOError:
            return False
        except MonitorError:
            raise
        except (OSError, wire.WireError) as error:
            self.lose(str(error))
            raise MonitorError(errno.EPIPE, f"the link to the monitor: {error}") from error
        return True

    def lose(self, reason: str) -> None:
        """Fail every call under way and every later one."""
        self._gone = MonitorError(errno.EPIPE, reason)
        while self._calls:
            _, call = self._calls.popitem()
            call.error = self._gone
            call.answered.release()

    def _receive_until(self, call: Call, timeout_s: float) -> None:
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        while not call.answered.acquire(blocking=False):
            if not poll.poll(timeout_s * 1000):
                raise MonitorError(errno.ETIMEDOUT, "the monitor did not answer")
            self.receive()

    def _take(self, packet: bytes, fds: list[int]) -> None:
        op, tag, fields = wire.decode(packet)
        if op == wire.LARGE:
            if not fds:
                raise wire.WireError("a large packet without its memfd")
            memfd, size = fds.pop(0), fields[0]
            try:
                op, tag, fields = wire.decode(packets.read_large(memfd, size))
            finally:
                os.close(memfd)
            self.tell(wire.TAKEN, size)
        if op == wire.REPLY or op == wire.ERROR:
            self._answer(op, tag, fields, fds)
        else:
            packets.close_all(fds)
            self._on_event(op, fields)

    def _answer(self, op: int, tag: int, fields: list[Any], fds: list[int]) -> None:
        call = self._calls.pop(tag, None)
        if call is None:  # given up waiting
            packets.close_all(fds)
            return
        if op == wire.ERROR:
            call.error = MonitorError(fields[0], fields[1].decode("utf-8", "replace"))
        call.fields = fields
        call.fds = fds
        call.answered.release()
