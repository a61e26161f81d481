"""The guest's end of the mirror: each socket that the host listens on exists here too.

A name ``host`` appears as the unix socket /run/testbed/host and as vsock port 0x40000000,
``host_N`` as /run/testbed/host_N and as vsock port N, on every CID: the daemon under test
finds the host where a real one would be, whatever its transport.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from functools import partial

from uvmd.api.testing.guest.inside import helper, mux

PORT = "testbed.mirror"
FOLDER = "/run/testbed"
BRIDGE_PORT = 0x40000000


def listeners(name: str) -> list[socket.socket]:
    """Listen for a name in both families; vsock only where the kernel has it."""
    path = f"{FOLDER}/{name}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    unix.bind(path)
    unix.listen(64)
    port = int(name.partition("_")[2] or BRIDGE_PORT)
    vsock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    vsock.bind((socket.VMADDR_CID_ANY, port))
    vsock.listen(64)
    return [unix, vsock]


class Mirror:
    """Listeners by name, and the channels of what connected to them."""

    def __init__(self, link: int) -> None:
        self._mux = mux.Mux(link, self._control)
        self._listening: dict[str, list[socket.socket]] = {}

    def run(self) -> None:
        """Serve until the link ends."""
        while self._mux.step(3600):
            pass
        self._reset()

    def _control(self, kind: int, body: bytes) -> None:
        name = body.decode()
        if kind == mux.RESET:
            self._reset()
        elif kind == mux.LISTEN and name not in self._listening:
            self._listening[name] = listeners(name)
            for sock in self._listening[name]:
                self._mux.watch(sock.fileno(), partial(self._accept, sock, name))
        elif kind == mux.FORGET:
            self._forget(name)

    def _accept(self, sock: socket.socket, name: str) -> None:
        connection, _ = sock.accept()
        self._mux.open(connection, name)

    def _forget(self, name: str) -> None:
        for sock in self._listening.pop(name, ()):
            self._mux.forget(sock.fileno())
            sock.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{FOLDER}/{name}")

    def _reset(self) -> None:
        self._mux.reset()
        for name in list(self._listening):
            self._forget(name)


def main() -> None:
    os.makedirs(FOLDER, exist_ok=True)
    link = os.open(helper.find_port(PORT), os.O_RDWR)
    helper.notify_ready()
    while True:
        Mirror(link).run()
        # Nobody at the other end: before the first host, or between save and restore.
        time.sleep(0.02)


if __name__ == "__main__":
    main()
