"""Our end of the mirror: sockets that somebody listens on in a folder here also exist in the guest.

So the fake host of the wire tests, `uvmd.client` and `uvmctl` run outside, unchanged, and the
daemon in the guest dials them: over a unix socket or over vsock, whichever its transport says.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from pathlib import Path

from uvmd.api.testing.guest.inside import mux

_NAME = re.compile(r"host(_[0-9]+)?")
#: How soon a name that came or went is known in the guest, when no traffic tells earlier.
SCAN_S = 0.02


class Mirror:
    """Serves one guest from a thread of its own.

    Args:
        channel: the guest's end is at the other side of it.
        folder: the names ``host`` and ``host_N`` in it are mirrored.
    """

    def __init__(self, channel: socket.socket, folder: Path) -> None:
        self._channel = channel
        self._folder = folder
        self._told: set[str] = set()
        self._mux = mux.Mux(channel.fileno(), self._control, before=self._tell)
        self._mux.send(mux.RESET)
        self._ends, self._end = socket.socketpair()
        self._stopping = False
        self._mux.watch(self._ends.fileno(), self._stop)
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; the channel stays the owner's."""
        self._end.close()
        self._thread.join(10)

    def _stop(self) -> None:
        self._stopping = True

    def _run(self) -> None:
        try:
            while not self._stopping and self._mux.step(SCAN_S):
                continue
        finally:
            self._mux.reset()
            self._ends.close()

    def _tell(self) -> None:
        """Announce names before any byte that was read after they existed."""
        there = set()
        with contextlib.suppress(FileNotFoundError):
            there = {name for name in os.listdir(self._folder) if _NAME.fullmatch(name)}
        for name in there - self._told:
            self._mux.send(mux.LISTEN, 0, name.encode())
        for name in self._told - there:
            self._mux.send(mux.FORGET, 0, name.encode())
        self._told = there

    def _control(self, kind: int, body: bytes) -> socket.socket | None:
        if kind != mux.OPEN:
            return None
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(str(self._folder / body.decode()))
        except OSError:
            sock.close()
            return None
        return sock
