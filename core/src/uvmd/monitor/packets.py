"""How one packet crosses a SEQPACKET socket: descriptors, and memfds for large ones.

Both ends use it, the monitor without ever blocking, the daemon's link blocking.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import struct

from uvmd.monitor import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
#: What ``send`` says when nobody is there any more. All else passes: no descriptors or no memory at
#: this moment, or EBUSY, since a page that the kernel has in hand cannot be sealed (fcntl(2)).
GONE = (errno.EPIPE, errno.ECONNRESET, errno.ECONNREFUSED, errno.ENOTCONN, errno.EBADF)
_SPARE = 3
_ANCILLARY_BYTES = _socket.CMSG_SPACE((wire.MAX_DESCRIPTORS + 1) * 4)


class Spare:
    """Descriptors set aside for packets that need some while there are no others.

    A peer that can neither be told nor heard would never release what has taken them all.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: list[int] = []
        self.hold()

    def hold(self) -> None:
        """Set aside what is missing, as far as it can be had."""
        try:
            while len(self._held) < _SPARE:
                self._held.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            pass

    def free(self) -> None:
        """Let others have them, until ``hold``."""
        while self._held:
            os.close(self._held.pop())


def send(sock: _socket.socket, packet: bytes, fds: Sequence[int] = (), flags: int = 0) -> None:
    """Hand one packet and its descriptors to the kernel, whole or not at all.

    Raises:
        OSError: as sendmsg(2); BlockingIOError with MSG_DONTWAIT and a full buffer.
    """
    if len(packet) <= wire.MAX_INLINE_BYTES:
        _send_one(sock, packet, fds, flags)
        return
    memfd = sealed("uvmd-packet", packet)
    try:
        _send_one(sock, wire.encode(wire.LARGE, 0, len(packet)), [memfd, *fds], flags)
    finally:
        os.close(memfd)


def receive(sock: _socket.socket, room: memoryview, flags: int = 0) -> tuple[bytes, list[int]]:
    """Return one packet as it came, and its descriptors; b"" is the end.

    ``room`` has ``wire.ROOM_BYTES``, and is free again afterwards.

    Raises:
        OSError: as recvmsg(2); EMFILE when its descriptors are lost, since we have no room for them.
        WireError: more bytes or descriptors than any packet has.
    """
    count, ancillary, got, _ = sock.recvmsg_into([room], _ANCILLARY_BYTES, flags | _socket.MSG_CMSG_CLOEXEC)
    packet = bytes(room[:count])
    if not ancillary and not got & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC):
        return packet, []
    fds: list[int] = []
    for level, kind, data in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            whole = len(data) // 4
            fds.extend(struct.unpack(f"{whole}i", data[: whole * 4]))
    if got & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC):
        close_all(fds)
        if got & _socket.MSG_CTRUNC and len(fds) <= wire.MAX_DESCRIPTORS:
            raise OSError(errno.EMFILE, "no descriptors left for those of a packet")
        raise wire.WireError("a packet above the limits")
    return packet, fds


def brings_descriptors(sock: _socket.socket) -> bool:
    """Tell whether the next packet has descriptors, and leave it: those without room are lost for good.

    Raises:
        OSError: as recvmsg(2).
    """
    _, _, got, _ = sock.recvmsg(1, 0, _socket.MSG_PEEK)
    return bool(got & _socket.MSG_CTRUNC)


def read_large(memfd: int, size: int) -> bytes:
    """Return the packet in a memfd, at most as large as announced.

    Raises:
        WireError: not sealed (its sender could still shrink it under us), or another size.
    """
    try:
        sealed = fcntl.fcntl(memfd, fcntl.F_GET_SEALS) & _SEALS == _SEALS
    except OSError:  # no memfd at all
        sealed = False
    if not sealed or not 0 < size <= wire.MAX_PACKET_BYTES or os.fstat(memfd).st_size != size:
        raise wire.WireError(f"large packet of {size} bytes is not what it claims")
    packet = os.pread(memfd, size, 0)
    if len(packet) != size:
        raise wire.WireError("large packet cut short")
    return packet


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors that nobody took."""
    for fd in fds:
        os.close(fd)


def _send_one(sock: _socket.socket, packet: bytes, fds: Sequence[int], flags: int) -> None:
    if fds:
        rights = struct.pack(f"{len(fds)}i", *fds)
        control = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)]
        sock.sendmsg([packet], control, flags | _socket.MSG_NOSIGNAL)
    else:
        sock.send(packet, flags | _socket.MSG_NOSIGNAL)


def sealed(name: str, content: bytes) -> int:
    """Return a memfd that holds these bytes, and nothing else for ever."""
    memfd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(memfd, view) :]
        fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(memfd)
        raise
    return memfd
