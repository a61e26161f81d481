"""What daemon and policyd say to each other over their socket (docs/policyd.md).

A question is ``<IB``: the length of what follows, the operation; then its body. An answer
is a length and a JSON object. One question is under way at a time.
"""

from __future__ import annotations

import socket
import struct
import time

#: Raised when policyd would answer otherwise than before, by its rules too: a policyd that an
#: older daemon has started then makes way for one of this version.
VERSION = 2

HELLO = 1
LOAD = 2
DECIDE = 3
FRAGMENT = 4
TRUST_LIST = 5
MOUNTS = 6
APPLY = 7
DESCRIBE = 8

#: A policy of this size has been refused by the gate long before.
MAX_BYTES = 128 << 20
_QUESTION = struct.Struct("<IB")
_ANSWER = struct.Struct("<I")
_CHUNK = 1 << 18


class Broken(Exception):
    """The other end is gone, or does not keep to the protocol."""


def send_question(sock: socket.socket, op: int, body: bytes, deadline: float) -> None:
    """Send a question.

    Raises:
        TimeoutError, OSError: not until the deadline (monotonic clock), or the peer is gone.
    """
    sock.settimeout(_left(deadline))
    sock.sendall(_QUESTION.pack(len(body), op) + body)


def receive_answer(sock: socket.socket, deadline: float) -> bytes:
    """Return the body of an answer.

    Raises:
        TimeoutError, OSError: not until the deadline, or the peer is gone.
        Broken: the peer is gone, or sends too much.
    """
    # Nearly every answer comes with its head in one piece.
    sock.settimeout(_left(deadline))
    first = sock.recv(_CHUNK)
    while len(first) < _ANSWER.size:
        sock.settimeout(_left(deadline))
        more = sock.recv(_CHUNK)
        if not more:
            raise Broken("it has ended")
        first += more
    (size,) = _ANSWER.unpack_from(first)
    if size > MAX_BYTES:
        raise Broken("its answer is too large")
    parts, left = [first[_ANSWER.size :]], size - len(first) + _ANSWER.size
    while left > 0:
        sock.settimeout(_left(deadline))
        more = sock.recv(min(left, _CHUNK))
        if not more:
            raise Broken("it has ended")
        parts.append(more)
        left -= len(more)
    if left < 0:
        raise Broken("it says more than it was asked")
    return b"".join(parts)


def receive_question(sock: socket.socket) -> tuple[int, bytes] | None:
    """Return operation and body of the next question, None at the end of the connection.

    Raises:
        OSError: the connection is broken.
        Broken: it ends in the middle, or the question is too large.
    """
    head = _exactly(sock, _QUESTION.size)
    if head is None:
        return None
    size, op = _QUESTION.unpack(head)
    if size > MAX_BYTES:
        raise Broken("a question that is too large")
    body = _exactly(sock, size)
    if body is None:
        raise Broken("a question without its body")
    return op, body


def send_answer(sock: socket.socket, body: bytes) -> None:
    """Send an answer.

    Raises:
        OSError: the peer is gone.
    """
    sock.sendall(_ANSWER.pack(len(body)) + body)


def _exactly(sock: socket.socket, size: int) -> bytes | None:
    if size == 0:
        return b""
    parts, left = [], size
    while left:
        more = sock.recv(min(left, _CHUNK))
        if not more:
            if left == size:
                return None
            raise Broken("the connection ended in the middle")
        parts.append(more)
        left -= len(more)
    return b"".join(parts)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("too late")
    return left
