"""Waiting for hardware: the kernel says when something comes, and a clock bounds the wait.

Every change of a device is announced on a netlink socket. A message is only a reason to
look again: what is believed is what the look finds. Where there is no such socket, or a
message got lost, a look every now and then does.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from uvmd.errors import DeadlineExceeded

T = TypeVar("T")

NETLINK_KOBJECT_UEVENT: Final = 15
_KERNEL_GROUP: Final = 1
#: How often is looked without a message: when they come, and when there is no socket.
_FALLBACK_S: Final = 0.1
_POLL_S: Final = 0.01
#: A device that is not there yet, or whose driver is not done with it.
_NOT_YET: Final = (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ENOTDIR)


class Source(Protocol):
    """Where messages come from."""

    def wait(self, timeout_s: float) -> None:
        """Return when something happened, or the time is up."""

    def close(self) -> None:
        """Stop listening."""


class Uevents:
    """The kernel's messages about devices, since the socket was made.

    Args:
        about: a part of the device's path in sysfs, without its mount point; messages about
            others are passed over.
    """

    def __init__(self, about: str = "") -> None:
        self._about = about.encode()
        self._socket: socket.socket | None = None
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK,
                socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
                NETLINK_KOBJECT_UEVENT,
            )
            self._socket.bind((0, _KERNEL_GROUP))
        except OSError:
            # A sandbox without netlink: the fallback is then all there is.
            self.close()

    def wait(self, timeout_s: float) -> None:
        """Return after a message, or at the latest when it is time for a look without one."""
        if self._socket is None:
            time.sleep(min(timeout_s, _POLL_S))
            return
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        until = time.monotonic() + min(timeout_s, _FALLBACK_S)
        while (left_s := until - time.monotonic()) > 0:
            if poller.poll(max(1, round(left_s * 1000))) and self._heard(self._socket):
                return

    def _heard(self, sock: socket.socket) -> bool:
        """Take what piled up, which one look answers; tell whether any of it is reason for one."""
        heard = False
        # Bounded, should they come faster than they are read.
        for _ in range(256):
            try:
                header, _, _ = sock.recv(8192).partition(b"\0")
                heard = heard or self._about in header
            except BlockingIOError:
                return heard
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                heard = True  # some were lost
        return heard

    def close(self) -> None:
        """Stop listening."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def wait_for(
    check: Callable[[], T | None],
    deadline: float,
    what: str,
    *,
    seen: Callable[[], str] | None = None,
    about: str = "",
    listen: Callable[[str], Source] = Uevents,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Return what ``check`` returns as soon as it is not None.

    ``check`` may also raise what says that a device is not there yet (ENOENT, ENXIO, ENODEV
    or ENOTDIR); any other exception of it ends the wait. It is called at least once, at
    once, then whenever something happened to a device.

    Args:
        what: what is waited for, for the error.
        seen: called at the end, to tell what is there instead.
        about: a part of the device's path in sysfs where that is known: what happens to other
            devices is then no reason to look, which counts where many are waited for at once.

    Raises:
        DeadlineExceeded: not by ``deadline`` (monotonic clock).
    """
    began = clock()
    last: list[str] = []
    found = _look(check, last)
    if found is not None:
        return found
    source = listen(about)
    try:
        # Once more now that nothing can be missed.
        while (found := _look(check, last)) is None:
            left_s = deadline - clock()
            if left_s <= 0:
                raise DeadlineExceeded(_gave_up(what, clock() - began, last, seen))
            source.wait(left_s)
        return found
    finally:
        source.close()


def _look(check: Callable[[], T | None], last: list[str]) -> T | None:
    try:
        return check()
    except OSError as error:
        if error.errno not in _NOT_YET:
            raise
        where = f": {error.filename}" if isinstance(error.filename, str) else ""
        last[:] = [f"{(error.strerror or os.strerror(error.errno)).lower()}{where}"]
        return None


def _gave_up(what: str, waited_s: float, last: list[str], seen: Callable[[], str] | None) -> str:
    text = f"{what} did not come within {waited_s:.1f} s"
    if last:
        text += f" ({last[0]})"
    if seen is not None:
        try:
            text += f"; there is {seen()}"
        except OSError:
            text += "; what is there instead cannot be read"
    return text
