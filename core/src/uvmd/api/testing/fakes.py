"""Fakes of what a handler is given: environment, command runner, state, containers."""

from __future__ import annotations

import errno
import json
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from uvmd.api.environment import Completed, Environment, Limits
from uvmd.errors import ContainerNotFound, InvalidState


class Finished(NamedTuple):
    """How a faked command ended."""

    status: int = 0
    output: bytes = b""
    timed_out: bool = False


@dataclass
class FakeRun:
    """Remembers command lines; ``answer`` says how each ends, the default is well."""

    answer: Callable[[Sequence[str]], Finished] = lambda argv: Finished()
    calls: list[tuple[str, ...]] = field(default_factory=list)

    def __call__(
        self,
        argv: Sequence[str],
        *,
        deadline: float,
        stdin: bytes = b"",
        fds: Sequence[int] = (),
        limit_bytes: int = 65536,
    ) -> Completed:
        self.calls.append(tuple(argv))
        return self.answer(argv)


class MemoryState:
    """A state that lasts as long as the test. What is saved must be JSON, as in a VM."""

    def __init__(self) -> None:
        self._text = "{}"
        self._log: list[str] = []

    def load(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self._text)
        return value

    def save(self, value: Mapping[str, Any]) -> None:
        self._text, self._log = json.dumps(dict(value)), []

    def append(self, entry: Mapping[str, Any]) -> None:
        self._log.append(json.dumps(dict(entry)))

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self._log]


class FakeService:
    """A service on a thread of the test: ``run`` is given the listening socket, as a process is.

    It must return when the socket, or a connection that it took, ends.
    """

    def __init__(self, run: Callable[[socket.socket], None], starts: list[str], name: str) -> None:
        self._run = run
        self._starts = starts
        self._name = name
        self._listener: socket.socket | None = None
        self._connections: list[socket.socket] = []

    def start(self) -> None:
        self.kill()
        self._starts.append(self._name)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind("")  # the kernel picks a name that is no file
        listener.listen()
        self._listener = listener
        threading.Thread(target=self._serve, args=(listener,), daemon=True).start()

    def _serve(self, listener: socket.socket) -> None:
        with listener:
            self._run(listener)

    def connect(self, deadline: float) -> int:
        if self._listener is None or self._listener.fileno() < 0:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the service does not run")
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._listener.getsockname())
        self._connections.append(connection.dup())
        return connection.detach()

    def kill(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None and listener.fileno() >= 0:
            listener.shutdown(socket.SHUT_RDWR)
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._connections = []


class FakeServices:
    """Stands for ``env.service``; ``starts`` names each service that was started."""

    def __init__(self, run: Callable[[socket.socket], None] = lambda listener: None) -> None:
        self._run = run
        self._known: dict[str, FakeService] = {}
        self.starts: list[str] = []

    def __call__(self, name: str, argv: Sequence[str], limits: Limits) -> FakeService:
        return self._known.setdefault(name, FakeService(self._run, self.starts, name))


class FakePlatform(NamedTuple):
    """A VM of no particular make: the host's SCSI controllers and PCI devices are what the test says."""

    name: str = "virtio"
    sys_root: str = "/sys"
    dev_root: str = "/dev"
    scsi_hosts: Mapping[int, int] = MappingProxyType({})
    pci_paths: Mapping[str, str] = MappingProxyType({})

    def scsi_host(self, controller: int) -> int:
        if controller not in self.scsi_hosts:
            raise FileNotFoundError(errno.ENOENT, "no SCSI host", f"controller {controller}")
        return self.scsi_hosts[controller]

    def pci_path(self, device: str) -> str:
        if device not in self.pci_paths:
            raise FileNotFoundError(errno.ENOENT, "no PCI device", device)
        return self.pci_paths[device]


def _nobody_listens(port: int, deadline: float) -> int:
    raise ConnectionRefusedError(111, "Connection refused", f"port {port}")


def fake_environment(config: object = None, **parts: Any) -> Environment:
    """Return an environment of fakes; ``parts`` replaces some of them by name."""
    return Environment(
        config=config,
        platform=parts.pop("platform", FakePlatform()),
        dial=parts.pop("dial", _nobody_listens),
        run=parts.pop("run", FakeRun()),
        state=parts.pop("state", MemoryState()),
        service=parts.pop("service", FakeServices()),
        **parts,
    )


@dataclass
class FakeContainers:
    """Containers as the pipeline and a plan see them: ``status`` by id, roots by id."""

    states: dict[str, str] = field(default_factory=dict)
    roots: dict[str, str] = field(default_factory=dict)
    updates: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    refreshed: int = 0

    @property
    def containers(self) -> FakeContainers:
        return self

    def status(self, container_id: str) -> str | None:
        return self.states.get(container_id)

    def using_root(self, path: str) -> Sequence[str]:
        return [one for one, root in self.roots.items() if root == path]

    def require_created(self, container_id: str) -> None:
        state = self.states.get(container_id)
        if state is None:
            raise ContainerNotFound(f"container {container_id} is not known")
        if state == "creating":
            raise InvalidState(f"container {container_id} is still being created")

    def update_constraints(self, container_id: str, resources: dict[str, Any]) -> None:
        self.updates.append((container_id, resources))

    def refresh_pod_limit(self) -> None:
        self.refreshed += 1
