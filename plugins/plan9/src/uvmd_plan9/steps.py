"""The steps of mounting a share, each with its opposite, and of taking it away."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Final

from uvmd.api import Environment, Record, Undo
from uvmd.errors import Failed, UvmdError
from uvmd.linux import mount_points, mounts, paths
from uvmd_plan9 import commands
from uvmd_plan9.share import FSTYPE, MSIZE, Share

MODE: Final = 0o700


class Shares:
    """Mounts and unmounts shares, and keeps an end of each connection to be able to end it.

    A later daemon has none of them; there an unmount whose server does not answer can
    only be killed.
    """

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._mutex = threading.Lock()
        self._connections: dict[str, socket.socket] = {}

    def mount(self, share: Share, undo: Undo) -> Record:
        """Make the directory, dial the host's server, mount; return what a removal must know.

        Raises:
            Failed: naming the step, the path and the reason.
        """
        target = share.target
        where, made = _make_directory(target)
        try:
            if made:
                undo.callback(mount_points.remove_directories, made, step=f"remove {made[0]}")
            connection = self._connect(share)
            undo.callback(self._forget, target, step=f"close the connection of {target}")
            # Before it is mounted: mount(8) may have done it and then be killed at its deadline.
            there = len(mounts.mounted_at(target))
            undo.callback(self.unmount, target, there, step=f"unmount {target}")
            try:
                deadline = time.monotonic() + self._env.config.mount_timeout_s
                commands.mount(self._env.run, share, where, connection, deadline)
            except (UvmdError, OSError) as error:
                text = f"failed to mount directory for mapped directory {target}: {told(error)}"
                raise Failed(text) from error
        finally:
            os.close(where)
        return {"made": len(made)}

    def unmount(self, target: str, keep: int = 0) -> None:
        """Unmount a share, if it is still there, and close its connection.

        ``keep``: so many mounts at the path are others'.

        Raises:
            Failed: it cannot be unmounted.
        """
        with self._mutex:
            connection = self._connections.get(target)
        deadline = time.monotonic() + self._env.config.unmount_timeout_s
        try:
            commands.unmount(self._env.run, target, connection, deadline, keep)
        except (UvmdError, OSError) as error:
            raise Failed(f"unmounting plan9 device at {target} failed: {told(error)}") from error
        self._forget(target)

    def take_away(self, target: str, facts: Record) -> None:
        """Remove what a daemon left that was killed in the middle of an Add."""
        if any(mount.fstype == FSTYPE for mount in mounts.mounted_at(target)):
            self.unmount(target)
        mount_points.remove_last(target, 1)

    def _connect(self, share: Share) -> socket.socket:
        what = f"could not connect to plan9 server for {share.target}: port {share.port}"
        try:
            deadline = time.monotonic() + self._env.config.dial_timeout_s
            connection = _socket_of(self._env.dial(share.port, deadline))
        except (UvmdError, OSError) as error:
            raise Failed(f"{what}: {told(error)}") from error
        try:
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                connection.setsockopt(socket.SOL_SOCKET, option, MSIZE)
        except BaseException as error:
            connection.close()
            if isinstance(error, OSError):
                raise Failed(f"{what}: buffers of the socket: {told(error)}") from error
            raise
        with self._mutex:
            self._connections[share.target] = connection
        return connection

    def _forget(self, target: str) -> None:
        with self._mutex:
            connection = self._connections.pop(target, None)
        if connection is not None:
            connection.close()


def _socket_of(fd: int) -> socket.socket:
    try:
        return socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        raise


def _make_directory(path: str) -> tuple[int, list[str]]:
    try:
        return paths.ensure_directory_beneath("/", path[1:], MODE)
    except OSError as error:
        raise Failed(f"directory for mapped directory {path}: {told(error)}") from error


def told(error: BaseException) -> str:
    """An error's text, as errors of ours quote it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)
