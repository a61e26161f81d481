"""One socket of rtnetlink: a request, and what the kernel says to it.

Belongs to the network namespace in which it was made, whichever thread uses it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_ERROR: Final = struct.Struct("=i")
_ATTRIBUTE: Final = struct.Struct("=HH")

# linux/netlink.h
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_NLM_F_ACK_TLVS: Final = 0x200
_NLM_F_CAPPED: Final = 0x100
_NLM_F_DUMP: Final = 0x300
_NLM_F_ACK: Final = 0x004
_NLMSGERR_ATTR_MSG: Final = 1
_SOL_NETLINK: Final = 270
_NETLINK_CAP_ACK: Final = 10
_NETLINK_EXT_ACK: Final = 11

#: The kernel answers while it is asked; only a machine in trouble takes longer.
_ANSWER_S: Final = 20
_BUFFER: Final = 1 << 16


class Netlink:
    """Speaks to the kernel about links, addresses, routes and rules. Used by one thread at a time."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        # An answer without the request in it, and with the kernel's reason in words.
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", _ANSWER_S, 0))
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def request(self, message: bytes) -> list[bytes]:
        """Send a message, wait for its end, and return what came as an answer.

        Raises:
            OSError: the kernel refused; its errno, and its reason if it gave one. TimeoutError:
                it did not answer.
        """
        self._sequence += 1
        length, type_, flags, _, _ = _HEADER.unpack_from(message)
        if flags & _NLM_F_DUMP != _NLM_F_DUMP:
            flags |= _NLM_F_ACK
        head = _HEADER.pack(length, type_, flags, self._sequence, 0)
        self._socket.send(head + message[_HEADER.size :])
        answers: list[bytes] = []
        while True:
            try:
                data = self._socket.recv(_BUFFER)
            except BlockingIOError:
                raise TimeoutError(errno.ETIMEDOUT, "the kernel did not answer") from None
            for type_, sequence, one in messages(data):
                if sequence != self._sequence:
                    continue  # of a request that was given up
                if type_ == _NLMSG_ERROR:
                    raise_error(one)
                    return answers
                if type_ == _NLMSG_DONE:
                    return answers
                answers.append(one)


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Split what was received: type, sequence number and the whole message of each."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, type_, _, sequence, _ = _HEADER.unpack_from(data, at)
        if not _HEADER.size <= length <= len(data) - at:
            raise OSError(errno.EBADMSG, "a message of netlink with an impossible length")
        yield type_, sequence, data[at : at + length]
        at += (length + 3) & ~3


def raise_error(message: bytes) -> None:
    """Raise what a message of type NLMSG_ERROR says; return if it says that all is well."""
    if len(message) < _HEADER.size + _ERROR.size:
        raise OSError(errno.EBADMSG, "a message of netlink that is too short")
    (code,) = _ERROR.unpack_from(message, _HEADER.size)
    if code:
        reason = _reason(message) or os.strerror(-code)
        raise OSError(-code, reason)


def _reason(message: bytes) -> str:
    """The kernel's own words, which follow the header of the request."""
    flags = _HEADER.unpack_from(message)[2]
    at = 2 * _HEADER.size + _ERROR.size
    if not flags & _NLM_F_ACK_TLVS:
        return ""
    if not flags & _NLM_F_CAPPED and len(message) >= at:
        # The whole request is repeated: before the words comes what it carried.
        at += _HEADER.unpack_from(message, _HEADER.size + _ERROR.size)[0] - _HEADER.size
    while at + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, at)
        if not _ATTRIBUTE.size <= length <= len(message) - at:
            return ""
        if kind == _NLMSGERR_ATTR_MSG:
            text = message[at + _ATTRIBUTE.size : at + length].rstrip(b"\0").decode("ascii", "replace")
            return text.rstrip(".").lower()
        at += (length + 3) & ~3
    return ""
