"""``env.service``: helper processes of plugins, children of the monitor that outlive a daemon.

The daemon makes a listening socket in its own folder and hands it to the process; a
daemon that comes later finds the process by the label of its slot, and the socket by its
name. Nobody else can reach it: the folder is ours alone.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Sequence
from weakref import WeakValueDictionary

from uvmd.api.environment import Limits
from uvmd.monitor.link import Link, MonitorState
from uvmd.oci.runtime import DEFAULT_PATH

_BACKLOG = 8


class Services:
    """All services of a daemon; ``folder`` is made when the first one starts."""

    def __init__(self, link: Link, folder: str) -> None:
        self._link = link
        self._folder = folder
        self._mutex = threading.Lock()
        self._left: dict[str, int] = {}
        # Weakly: a plugin may describe one after the other, as a host sends policies.
        self._known: WeakValueDictionary[str, Service] = WeakValueDictionary()

    def take_up(self, state: MonitorState) -> None:
        """Remember what an earlier daemon has started."""
        for found in state.services:
            self._left[found.label] = found.slot

    def of(self, distribution: str) -> Maker:
        """Return what makes the services of a distribution."""
        return Maker(self, distribution)

    def make(self, label: str, argv: Sequence[str], limits: Limits) -> Service:
        """Return a service; the same one for the same label."""
        with self._mutex:
            service = self._known.get(label)
            if service is None:
                left = self._left.pop(label, 0)
                service = Service(self._link, self._folder, label, argv, limits, left)
                self._known[label] = service
            return service

    def end(self) -> None:
        """Leave no socket behind. The processes end with the monitor."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return
        for name in names:
            os.unlink(f"{self._folder}/{name}")
        os.rmdir(self._folder)


class Maker:
    """Implements ``api.MakeService`` for one distribution."""

    def __init__(self, services: Services, distribution: str) -> None:
        self._services = services
        self._distribution = distribution

    def __call__(self, name: str, argv: Sequence[str], limits: Limits) -> Service:
        """Describe a service; see ``api.MakeService``."""
        return self._services.make(f"{self._distribution}.{name}", argv, limits)


class Service:
    """Implements ``api.Service``. ``slot`` is what an earlier daemon started, or 0."""

    def __init__(
        self, link: Link, folder: str, label: str, argv: Sequence[str], limits: Limits, slot: int
    ) -> None:
        self._link = link
        self._folder = folder
        self._label = label
        self._argv = argv
        self._limits = limits
        self._slot = slot
        self._mutex = threading.Lock()

    def start(self) -> None:
        """Start it, in place of one that runs.

        Raises:
            OSError: it could not be started.
        """
        with self._mutex:
            self._end()
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            with socket.socket(socket.AF_UNIX) as listener, _Folder(self._folder) as folder:
                listener.bind(folder.path(self._label))
                listener.listen(_BACKLOG)
                slot = self._link.new_slot()
                self._link.service(
                    slot,
                    self._argv,
                    env={"PATH": DEFAULT_PATH},
                    limits=_bounds(self._limits),
                    fds=[listener.fileno()],
                    label=self._label,
                )
            self._slot = slot

    def connect(self, deadline: float) -> int:
        """Connect to the one that runs; see ``api.Service``.

        Raises:
            OSError: none runs, or it took no connection in time.
        """
        with socket.socket(socket.AF_UNIX) as connection, _Folder(self._folder) as folder:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            connection.connect(folder.path(self._label))
            connection.settimeout(None)
            return connection.detach()

    def kill(self) -> None:
        """End the one that runs, if any."""
        with self._mutex:
            self._end()

    def _end(self) -> None:
        slot, self._slot = self._slot, 0
        if slot:
            try:
                self._link.kill(slot, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._link.release(slot)
        try:
            os.unlink(f"{self._folder}/{self._label}")
        except FileNotFoundError:
            pass


class _Folder:
    """A folder by its descriptor: a socket's address holds 108 bytes, a path may be longer."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def path(self, name: str) -> str:
        return f"/proc/self/fd/{self._fd}/{name}"

    def __enter__(self) -> _Folder:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _bounds(limits: Limits) -> dict[str, int]:
    return {
        "data": limits.memory_bytes,
        "nofile": limits.descriptors,
        "core": 0,
        "fsize": 0,
    }
