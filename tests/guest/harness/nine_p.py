"""A 9p server in the guest, at the place where the daemon dials its host."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guest.harness.guest import Guest


def _serve(folder: str, port: int) -> None:
    """Listen on a vsock port and on its unix twin; each connection gets a diod of its own."""
    import os
    import socket
    import subprocess
    import threading

    path = f"/run/testbed/host_{port}"
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    unix.bind(path)
    vsock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    vsock.bind((socket.VMADDR_CID_ANY, port))

    def accept(listener: socket.socket) -> None:
        listener.listen(16)
        while True:
            connection, _ = listener.accept()
            fd = connection.fileno()
            command = ["diod", "-f", "-n", "-s", "-r", str(fd), "-w", str(fd), "-e", folder, "-L", "stderr"]
            subprocess.Popen(command, pass_fds=[fd], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            connection.close()

    for listener in (unix, vsock):
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
    os.stat(path)


def serve(guest: Guest, folder: str) -> int:
    """Serve a folder; return the port. It must be a mount of its own: diod looks up files by device,
    and on the root's overlay files and folders show different ones."""
    port, listener = guest.host.next_port()
    # Only the number is wanted: the listener is in the guest.
    name = listener.getsockname()
    listener.close()
    from pathlib import Path

    Path(name).unlink()
    guest.call(_serve, folder, port)
    return port
