"""Pods for unit tests: specifications, mounts that are only noted, a network in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from unit.host.fakes import Bench, container_spec
from uvmd.api.transaction import Undo
from uvmd.linux import mounts

TYPE = "io.kubernetes.cri.container-type"
SANDBOX_ID = "io.kubernetes.cri.sandbox-id"
VIRTUAL_ID = "io.microsoft.cri.virtual-pod-id"


def sandbox_spec(
    namespace: str = "", annotations: dict[str, str] | None = None, **changes: Any
) -> dict[str, Any]:
    named = {TYPE: "sandbox", **(annotations or {})}
    windows = {"network": {"networkNamespace": namespace}}
    return container_spec(annotations=named, windows=windows, **{"hostname": "pod", **changes})


def workload_spec(
    pod_id: str = "s1",
    sources: Sequence[str] = (),
    annotations: dict[str, str] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    named = {TYPE: "container", SANDBOX_ID: pod_id, **(annotations or {})}
    bound = [{"destination": f"/m{n}", "type": "bind", "source": source} for n, source in enumerate(sources)]
    return container_spec(annotations=named, mounts=bound, **changes)


@dataclass
class NotedMounts:
    """Mounts as ``uvmd.linux.mounts`` would make them; targets, the newest last."""

    targets: list[str] = field(default_factory=list)
    busy: set[str] = field(default_factory=set)

    def _add(self, target: str | int) -> None:
        self.targets.append(os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else target)

    def mount(self, source: str, target: str | int, fstype: str, flags: int = 0, data: str = "") -> None:
        self._add(target)

    def bind(self, source: str | int, target: str | int, recursive: bool = False) -> None:
        self._add(target)

    def unmount(self, target: str, flags: int = 0) -> None:
        if target not in self.targets:
            raise OSError(22, "Invalid argument", target)
        if target in self.busy and not flags:
            raise OSError(16, "Device or resource busy", target)
        self.targets.reverse()
        self.targets.remove(target)
        self.targets.reverse()

    def unmount_tree(self, path: str, flags: int = 0) -> None:
        for target in reversed(self.targets[:]):
            if target == path or target.startswith(f"{path}/"):
                self.unmount(target, flags)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> NotedMounts:
        for name in ("mount", "bind", "unmount", "unmount_tree"):
            monkeypatch.setattr(mounts, name, getattr(self, name))
        monkeypatch.setattr(mounts, "make_shared", lambda target, recursive=True: None)
        monkeypatch.setattr(mounts, "set_propagation", lambda target, flag: None)
        return self


@dataclass
class FakeNetwork:
    """A provider that knows some namespaces and remembers who is in them."""

    known: set[str] = field(default_factory=set)
    attached: dict[str, int] = field(default_factory=dict)
    failures: dict[str, Exception] = field(default_factory=dict)
    servers: Sequence[str] = ("10.0.0.1",)
    searches: Sequence[str] = ("a.b",)

    def _enter(self, name: str) -> None:
        if name in self.failures:
            raise self.failures[name]

    def exists(self, namespace: str) -> bool:
        self._enter("exists")
        return namespace in self.known

    def dns(self, namespace: str) -> tuple[Sequence[str], Sequence[str]]:
        self._enter("dns")
        return self.servers, self.searches

    def attach(self, namespace: str, pid: int, undo: Undo) -> None:
        self.attached[namespace] = pid
        undo.callback(self.attached.pop, namespace, step="detach")
        self._enter("attach")

    def attach_host(self, namespace: str, undo: Undo) -> None:
        self.attach(namespace, 0, undo)

    def detach(self, namespace: str) -> None:
        self._enter("detach")
        self.attached.pop(namespace, None)


def with_network(bench: Bench, *known: str) -> FakeNetwork:
    """Give a bench a provider."""
    provider = FakeNetwork(set(known))
    bench.provider = lambda: provider
    bench.ctx = bench.fresh_context()
    bench.ctx.exits.listen(bench.told.append)
    return provider


def end(bench: Bench, container_id: str) -> None:
    """Let a container's init end."""
    bench.monitor.end(bench.init_slot(container_id), 0)
