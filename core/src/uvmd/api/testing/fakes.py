"""Fakes of what a handler is given: environment, command runner, state, containers."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from uvmd.api.environment import Completed, Environment
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

    def load(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self._text)
        return value

    def save(self, value: Mapping[str, Any]) -> None:
        self._text = json.dumps(dict(value))


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
