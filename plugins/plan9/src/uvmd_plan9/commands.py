"""mount(8) and umount(8) for shares, as children that can be killed.

While a 9p mount is made or taken away the kernel talks with the host's server, which may
never answer. A thread of the daemon that waits for that cannot be ended; a child can. And
where even a killed child waits on (the kernel tells the server that it has given up, and
waits for the answer to that), ending the connection ends the wait.
"""

from __future__ import annotations

import os
import posixpath
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from uvmd.api import Run
from uvmd.errors import DeadlineExceeded, Failed
from uvmd.linux import mounts, paths
from uvmd_plan9.share import FSTYPE, Share

#: No helpers, no mtab, no other spelling of the path: the kernel alone is asked.
_PLAIN: Final = ("-i", "-n", "-c")
#: Between the end of the connection and that of the child.
_GRACE_S: Final = 1.0
_FIRST_FD: Final = 3
_MOST_STACKED: Final = 5


def mount(run: Run, share: Share, where: int, connection: socket.socket, deadline: float) -> None:
    """Mount a share on the directory of a descriptor.

    Raises:
        DeadlineExceeded: the server did not answer in time.
        Failed: with what mount(8) said.
        OSError: mount(8) could not be run.
    """
    argv = [
        "mount",
        *_PLAIN,
        "-t",
        FSTYPE,
        "-o",
        share.options(_FIRST_FD),
        share.target,
        f"/proc/self/fd/{_FIRST_FD + 1}",
    ]
    _run(run, argv, (connection.fileno(), where), share.target, connection, deadline)


def unmount(run: Run, target: str, connection: socket.socket | None, deadline: float, keep: int = 0) -> None:
    """Unmount what is stacked at a path, none of whose parents may be a symlink, but the first ``keep``.

    Nothing there is no error. Raises as :func:`mount`.
    """
    stacked = len(mounts.mounted_at(target))
    if stacked > _MOST_STACKED:
        raise Failed(f"{stacked} mounts are stacked at {target}")
    for _ in range(stacked - keep):
        parent, name = posixpath.split(target)
        flags = os.O_PATH | os.O_DIRECTORY
        fd = os.open("/", flags) if parent == "/" else paths.open_beneath("/", parent[1:], flags)
        try:
            argv = ["umount", *_PLAIN, f"/proc/self/fd/{_FIRST_FD}/{name}"]
            _run(run, argv, (fd,), target, connection, deadline)
        finally:
            os.close(fd)


def _run(
    run: Run,
    argv: Sequence[str],
    fds: Sequence[int],
    target: str,
    connection: socket.socket | None,
    deadline: float,
) -> None:
    began = time.monotonic()
    with _ended_at(connection, deadline):
        done = run(argv, deadline=deadline + _GRACE_S, fds=fds)
    waited_s = time.monotonic() - began
    if done.timed_out or (done.status and time.monotonic() >= deadline):
        raise DeadlineExceeded(f"{argv[0]} {target}: the host's server did not answer for {waited_s:.1f} s")
    if done.status:
        raise Failed(f"{argv[0]} {target}: {_said(done.output, argv[-1], target) or f'status {done.status}'}")


@contextmanager
def _ended_at(connection: socket.socket | None, deadline: float) -> Iterator[None]:
    if connection is None:
        yield
        return
    timer = threading.Timer(max(0.0, deadline - time.monotonic()), _end, (connection,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the server has ended it already


def _said(output: bytes, where: str, target: str) -> str:
    """The first line of what mount(8) wrote, about the path that the host knows."""
    first = output.decode("utf-8", "replace").strip().partition("\n")[0]
    _, _, text = first.replace(where, target).rpartition(f"{target}: ")
    return text.rstrip(".").lower()[:300]
