"""A daemon that somebody else starts: the service manager, as a unit of its own.

It connects to a socket of ours, in a folder for root alone. One at a time; one that comes
while another is there is turned away. Who starts it also sees its exit status and decides
whether there is a next one; we notice its end, and keep everything until another one comes.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import select
import struct

from uvmd.monitor.loop import IN
from uvmd.monitor.spawn import clean_environment
from uvmd.monitor.supervisor import Supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence
else:
    import _signal as signal

#: The status of an end that we only see.
UNKNOWN = 0
#: A daemon that has closed its link is on its way out, or out of its mind.
LEAVING_S = 2.0

RETRY_S = 0.1

_BACKLOG = 4
_CREDENTIALS = struct.Struct("iII")


class Attached(Supervisor):
    """Waits for daemons, once it has been told to ``listen``.

    ``on_ended(status)``: the daemon's process is gone; its status is somebody else's to know.
    """

    _pidfd = -1
    #: Which daemon that is: the next one's descriptor may well have the same number.
    _arrivals = 0
    _last_started = False

    def listen(self, path: bytes) -> None:
        """Make the socket at which daemons are awaited.

        Raises:
            OSError: it cannot be made, or there is another monitor at that path.
        """
        self._claim = _claim(path)
        self._listener = _listen(path)

    @property
    def alive(self) -> bool:
        """True while the daemon's process is there."""
        return self._pidfd >= 0 or super().alive

    def start(self) -> None:
        """Let a daemon in."""
        if self.restart:
            self._loop.unwatch(self._listener.fileno())
            self._loop.watch(self._listener.fileno(), IN, self._accept)

    def exited(self, status: int) -> None:
        """The daemon's process is gone; let another one in."""
        self._drop_channel()
        self._log.info("the daemon has gone, waiting for another one")
        self._loop.unwatch(self._listener.fileno())
        self._start_after_a_pause()

    def greeted(self) -> None:
        """The daemon has said HELLO; one that refuses its configuration never does, and counts for none."""
        self.starts += self._greeted_at is None
        super().greeted()

    def start_last(self, how: tuple[Sequence[bytes], Sequence[bytes]] | None) -> bool:
        """Start a daemon as the ones before it were started, by argv and environment, as a child; once.

        One that is on its way out is waited for: two of them would be in each other's way.
        """
        if self._pidfd >= 0:
            return True
        if how is None or self._last_started:
            return False
        self._last_started = True
        self._drop_channel()
        argv, env = how
        self._spawn(argv, clean_environment(env))
        return self.alive

    def kill(self) -> None:
        """Kill the daemon, whoever has started it."""
        if self._pidfd >= 0:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        else:
            super().kill()

    def _accept(self, _events: int) -> None:
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined]
        except OSError:
            # It has given up, or there are no descriptors: not to be asked again and again.
            self._loop.unwatch(self._listener.fileno())
            self._loop.call_later(RETRY_S, self.start)
            return
        sock = _socket.socket(fileno=fd)
        # The manager starts the next one when the last is gone; we may not have heard of that yet.
        if self._pidfd >= 0 and _has_ended(self._pidfd):
            self._ended(0)
        try:
            if self.alive or not self.restart:
                raise PermissionError("there is a daemon already" if self.alive else "the end has begun")
            pid, pidfd = _examine(sock)
        except OSError as error:
            self._log.error("a daemon is turned away", error=str(error))
            sock.close()
            return
        self._pidfd = pidfd
        self._arrivals += 1
        self._loop.watch(pidfd, IN, self._ended)
        self._converse(sock)
        self._log.info("a daemon has come", pid=pid)

    def _ended(self, _events: int) -> None:
        self._loop.unwatch(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        self._on_ended(UNKNOWN)

    def _lost(self, reason: str) -> None:
        self._log.info("the link has ended", reason=reason)
        self.channel = None
        here = self._arrivals
        self._loop.call_later(LEAVING_S, lambda: self._kill_if(here))
        self._on_lost()

    def _kill_if(self, arrival: int) -> None:
        """Kill it if it is still that one."""
        if self.channel is None and self._pidfd >= 0 and self._arrivals == arrival:
            self.kill()


def _claim(path: bytes) -> int:
    """Return a descriptor that is ours as long as we live: two monitors would share no child.

    Raises:
        OSError: there is one, or the folder is not.
    """
    fd = os.open(path + b".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise OSError(error.errno, "there is a monitor already") from error
    return fd


def _listen(path: bytes) -> _socket.socket:
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_NONBLOCK)
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    before = os.umask(0o177)
    try:
        sock.bind(path)
    finally:
        os.umask(before)
    sock.listen(_BACKLOG)
    return sock


def _examine(sock: _socket.socket) -> tuple[int, int]:
    """Return the peer's pid and a descriptor of it.

    Raises:
        OSError: it is not root, in a mount namespace of its own, or gone.
    """
    pid, uid, _ = _CREDENTIALS.unpack(
        sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    if uid != os.geteuid():
        raise PermissionError(f"it is user {uid}")
    pidfd = os.pidfd_open(pid)
    try:
        # A container to which the socket was mounted, or a unit whose options give it a root of its
        # own: what such a daemon mounts would be nobody else's.
        if os.stat(f"/proc/{pid}/ns/mnt").st_ino != os.stat("/proc/self/ns/mnt").st_ino:
            raise PermissionError("it has a mount namespace of its own")
        if _has_ended(pidfd):
            raise ProcessLookupError("it has gone")
    except BaseException:
        os.close(pidfd)
        raise
    return pid, pidfd


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
