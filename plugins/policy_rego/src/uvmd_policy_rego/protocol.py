"""What daemon and policyd say to each other over their socket (docs/policyd.md).

A question is ``<IB``: the length of what follows, the operation; then its body. An answer
is a length and a JSON object. One question is under way at a time.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable

#: Raised when policyd would answer otherwise than before, by its rules too: a policyd that an
#: older daemon has started then makes way for one of this version.
VERSION = 4

HELLO = 1
LOAD = 2
DECIDE = 3
FRAGMENT = 4
TRUST_LIST = 5
MOUNTS = 6
APPLY = 7
DESCRIBE = 8
#: Several of one request, each a line with its point and one with its input; up to the first no.
DECIDE_ALL = 9

#: A policy of this size has been refused by the gate long before.
MAX_BYTES = 128 << 20
_QUESTION = struct.Struct("<IB")
_ANSWER = struct.Struct("<I")
_CHUNK = 1 << 18
#: What nearly every answer fits into; room for a chunk takes longer than reading it.
_FIRST = 1 << 13
#: As a plain number: an enumeration's flag takes longer than the call.
_NOW = int(socket.MSG_DONTWAIT)


class Broken(Exception):
    """The other end is gone, or does not keep to the protocol."""


def send_question(sock: socket.socket, op: int, body: bytes, deadline: float) -> None:
    """Send a question.

    Raises:
        TimeoutError, OSError: not until the deadline (monotonic clock), or the peer is gone.
    """
    message = memoryview(_QUESTION.pack(len(body), op) + body)
    while message:
        # There is nearly always room: a time limit of the socket's would be asked for, and polled, first.
        try:
            message = message[sock.send(message, _NOW) :]
        except BlockingIOError:
            _wait(sock, select.POLLOUT, deadline)


def receive_answer(sock: socket.socket, deadline: float) -> bytes:
    """Return the body of an answer.

    Raises:
        TimeoutError, OSError: not until the deadline, or the peer is gone.
        Broken: the peer is gone, or sends too much.
    """

    def receive(size: int) -> bytes:
        _wait(sock, select.POLLIN, deadline)
        return sock.recv(size)

    message = _receive(receive, _ANSWER)
    if message is None:
        raise Broken("it has ended")
    return message[1]


def receive_question(sock: socket.socket) -> tuple[int, bytes] | None:
    """Return operation and body of the next question, None at the end of the connection.

    Raises:
        OSError: the connection is broken.
        Broken: it ends in the middle, or the question is too large.
    """
    # A sleeper in recv(2) would be woken once more by whoever reads its answer, and so makes room.
    asked = select.poll()
    asked.register(sock, select.POLLIN)

    def receive(size: int) -> bytes:
        asked.poll()
        return sock.recv(size)

    message = _receive(receive, _QUESTION)
    if message is None:
        return None
    (_, op), body = message
    return op, body


def send_answer(sock: socket.socket, body: bytes) -> None:
    """Send an answer.

    Raises:
        OSError: the peer is gone.
    """
    sock.sendall(_ANSWER.pack(len(body)) + body)


def _receive(receive: Callable[[int], bytes], form: struct.Struct) -> tuple[tuple[int, ...], bytes] | None:
    """Return head and body of the one message that is under way, None at the end of the connection."""
    # Nearly every one comes in one piece.
    got = receive(_FIRST)
    if not got:
        return None
    while len(got) < form.size:
        got += _more(receive, _FIRST)
    head = form.unpack_from(got)
    if head[0] > MAX_BYTES:
        raise Broken("it says too much at once")
    parts, left = [got[form.size :]], head[0] - len(got) + form.size
    while left > 0:
        parts.append(_more(receive, min(left, _CHUNK)))
        left -= len(parts[-1])
    if left < 0:
        raise Broken("it says more than it was asked")
    return head, b"".join(parts)


def _more(receive: Callable[[int], bytes], size: int) -> bytes:
    more = receive(size)
    if not more:
        raise Broken("it has ended in the middle")
    return more


def _wait(sock: socket.socket, for_: int, deadline: float) -> None:
    left_s = deadline - time.monotonic()
    poll = select.poll()
    poll.register(sock, for_)
    if left_s <= 0 or not poll.poll(left_s * 1000):
        raise TimeoutError("too late")
