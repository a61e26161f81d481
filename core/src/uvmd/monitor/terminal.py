"""Ptys: receiving a master from a runtime, making one ourselves, its size.

Spec: containers.md 9.3 step 5, 10.4.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import struct

from uvmd.monitor import packets

_TIOCGPTN = 0x80045430
_TIOCSPTLCK = 0x40045431
_TIOCSWINSZ = 0x5414

_MAX_MESSAGE_BYTES = 4096


class ConsoleSocket:
    """A listening unix socket on which a runtime hands over the master of a new pty."""

    __slots__ = ("_listener", "_path")

    def __init__(self, path: bytes) -> None:
        self._path = path
        self._listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            os.set_inheritable(self._listener.fileno(), False)
            self._listener.setblocking(False)
            self._listener.bind(path)
            self._listener.listen(1)
        except BaseException:
            self._listener.close()
            raise

    def take_master(self) -> int:
        """Return the master that the runtime, which has finished, has sent.

        The whole conversation waits in the socket by now, so nothing here can block: one
        connection, one message, one control message with one descriptor, or it is refused.

        Raises:
            OSError: EPROTO for anything else.
        """
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined]
        except BlockingIOError as error:
            raise OSError(errno.EPROTO, "the runtime did not connect to the console socket") from error
        connection = _socket.socket(fileno=fd)
        try:
            connection.setblocking(False)
            data, ancillary, flags, _ = connection.recvmsg(
                _MAX_MESSAGE_BYTES, _socket.CMSG_SPACE(4 * 16), _socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError as error:
            raise OSError(errno.EPROTO, "the runtime sent nothing on the console socket") from error
        finally:
            connection.close()
        fds = [
            fd
            for level, kind, content in ancillary
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS
            for (fd,) in struct.iter_unpack("i", content[: len(content) // 4 * 4])
        ]
        cut = flags & (_socket.MSG_CTRUNC | _socket.MSG_TRUNC)
        if len(ancillary) != 1 or len(fds) != 1 or cut or len(data) >= _MAX_MESSAGE_BYTES:
            packets.close_all(fds)
            raise OSError(errno.EPROTO, f"the console socket brought {len(fds)} descriptors, wanted 1")
        master: int = fds[0]
        os.set_blocking(master, False)
        return master

    def close(self) -> None:
        """Close the listener and remove its file."""
        self._listener.close()
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass


def open_pty() -> tuple[int, bytes]:
    """Return a new pty's master (non-blocking) and the path of its unlocked slave, mode 0600."""
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        number: int = struct.unpack("I", fcntl.ioctl(master, _TIOCGPTN, b"\0" * 4))[0]
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        slave = f"/dev/pts/{number}".encode()
        os.chmod(slave, 0o600)
        os.chown(slave, 0, 0)
    except BaseException:
        os.close(master)
        raise
    return master, slave


def resize(master: int, rows: int, columns: int) -> None:
    """Set the window size (ioctl_tty(2), TIOCSWINSZ).

    Raises:
        OSError: as the ioctl; EINVAL for numbers that do not fit.
    """
    if not (0 <= rows <= 0xFFFF and 0 <= columns <= 0xFFFF):
        raise OSError(errno.EINVAL, f"window of {rows} rows and {columns} columns")
    fcntl.ioctl(master, _TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
