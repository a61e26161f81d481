"""A monitor with a runtime inside, a gate and a bench to run operations on, all in memory.

No process is started: the fake answers what the monitor would, and its news is given at
once, on the caller's thread.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uvmd.api.policy import Decision
from uvmd.errors import Inconsistent, PolicyDenied
from uvmd.host.context import Context
from uvmd.host.exits import Exits
from uvmd.host.journal import Journal
from uvmd.host.locks import ChangeLock
from uvmd.host.network import Network
from uvmd.host.operations import create, start
from uvmd.host.parts import HostSettings
from uvmd.host.pods import Pods
from uvmd.host.registry import Registry
from uvmd.host.requests import ContainerExit, ExecuteRequest, Ports
from uvmd.host.shapers import Shapers
from uvmd.host.timers import Timers
from uvmd.linux.cgroups import Cgroups
from uvmd.monitor.link import Earlier
from uvmd.oci.runtime import OciRuntime


@dataclass(frozen=True)
class Finished:
    status: int = 0
    timed_out: bool = False
    output: bytes = b""
    pid: int = 0


@dataclass
class FakeSlot:
    number: int
    pid: int = 0
    status: int | None = None
    drained: bool = False
    connected: tuple[Any, ...] | None = None
    terminal: bool = False
    label: str = ""
    request: int = 0
    told: bool = False
    signalled: int = 0

    @property
    def slot(self) -> int:
        return self.number


@dataclass
class FakeMonitor:
    """The link, the monitor and the runtime behind it.

    ``failures`` maps an operation (``open_slot``, ``runtime create``, ...) to what it raises,
    ``outcomes`` a runtime command to how it ends and what it logs, ``once`` to how it ends
    the next time only.
    """

    failures: dict[str, BaseException] = field(default_factory=dict)
    outcomes: dict[str, tuple[Finished, str]] = field(default_factory=dict)
    once: dict[str, Finished] = field(default_factory=dict)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    slots: dict[int, FakeSlot] = field(default_factory=dict)
    containers: dict[str, str] = field(default_factory=dict)
    exits: Exits | None = None
    woken: int = 0
    last_slot: int = 0
    last_pid: int = 1000
    notes: list[str] = field(default_factory=list)
    awaited: list[int] = field(default_factory=list)
    #: Slots that an earlier daemon made, by request.
    earlier: dict[int, list[int]] = field(default_factory=dict)

    def note(self, name: str, value: bytes = b"") -> None:
        self.notes.append(name)

    def await_request(self, request: int) -> Earlier:
        self.awaited.append(request)
        return Earlier()

    def earlier_slots(self, request: int) -> list[int]:
        return self.earlier.pop(request, [])

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def arguments(self, name: str) -> list[Any]:
        return [arguments for called, arguments in self.calls if called == name]

    def _enter(self, name: str, arguments: Any) -> None:
        self.calls.append((name, arguments))
        if name in self.failures:
            raise self.failures[name]

    def new_slot(self) -> int:
        self.last_slot += 1
        return self.last_slot

    def skip_slots(self, highest: int) -> None:
        self.last_slot = max(self.last_slot, highest)

    def hello(self) -> FakeMonitor:
        return self

    def run(self, argv: Sequence[str], **options: Any) -> Finished:
        command, container_id = argv[5], argv[-1]
        name = f"runtime {command}"
        self.calls.append((name, {"argv": list(argv), **options}))
        slot = options.get("slot", 0)
        if slot and slot not in self.slots:
            self.slots[slot] = FakeSlot(slot)
        finished, log = self.outcomes.get(name, (self.once.pop(name, Finished()), ""))
        if log:
            Path(argv[2]).write_text(log)
        if name in self.failures:
            raise self.failures[name]
        if finished.status or finished.timed_out:
            return finished
        return self._obey(command, container_id, slot, finished)

    def _obey(self, command: str, container_id: str, slot: int, finished: Finished) -> Finished:
        if command in ("create", "exec"):
            self.last_pid += 1
            self.slots[slot].pid = self.last_pid
            if command == "create":
                self.containers[container_id] = "created"
            return Finished(pid=self.last_pid)
        if command == "start":
            self.containers[container_id] = "running"
        if command == "delete":
            self.containers.pop(container_id, None)
        if command == "state":
            if container_id not in self.containers:
                return Finished(1, output=b'level=error msg="container does not exist"')
            return Finished(output=json.dumps({"status": self.containers[container_id]}).encode())
        return finished

    def open_slot(
        self, slot: int, *, terminal: bool = False, console_socket: str = "", label: str = ""
    ) -> None:
        self._enter("open_slot", (slot, terminal, console_socket))
        self.slots[slot] = FakeSlot(slot, terminal=terminal, label=label)

    def connect(
        self,
        slot: int,
        ports: Ports,
        *,
        redial: bool = False,
        tee_fd: int | None = None,
        discard: bool = False,
        deadline_s: float = 30,
    ) -> None:
        self._enter("connect", (slot, ports, redial, tee_fd is not None, discard))
        self.slots[slot].connected = ports

    def spawn(self, slot: int, argv: Sequence[str], **options: Any) -> int:
        self._enter("spawn", {"argv": list(argv), **options})
        self.last_pid += 1
        self.slots[slot] = FakeSlot(slot, pid=self.last_pid, terminal=options.get("terminal", False))
        return self.last_pid

    def kill(self, slot: int, signal: int) -> None:
        self._enter("kill", (slot, signal))
        found = self.slots.get(slot)
        if found is None or not found.pid or found.status is not None:
            raise ProcessLookupError(3, "No such process")
        if signal == 9:
            self.end(slot, -9)

    def resize(self, slot: int, rows: int, columns: int) -> None:
        self._enter("resize", (slot, rows, columns))
        if not self.slots[slot].terminal:
            raise OSError(25, "Inappropriate ioctl for device")

    def stop_redial(self, slot: int) -> None:
        self._enter("stop_redial", slot)

    def release(self, slot: int) -> None:
        self._enter("release", slot)
        self.slots.pop(slot, None)

    def wake(self) -> None:
        self.woken += 1

    def end(self, slot: int, status: int, *, drain: bool = True) -> None:
        """End a slot's process and tell of it."""
        found = self.slots[slot]
        found.status = status
        assert self.exits is not None
        self.exits.exited(slot, found.pid, status)
        if drain:
            self.drain(slot)

    def drain(self, slot: int) -> None:
        assert self.exits is not None
        self.slots[slot].drained = True
        self.exits.drained(slot)


@dataclass
class FakeGate:
    """Says yes unless told otherwise; remembers what it was asked."""

    strict: bool = False
    wants_user_info: bool = False
    inconsistent: str | None = None
    degraded: str | None = None
    closed: str | None = None
    answers: dict[str, Decision] = field(default_factory=dict)
    denied: set[str] = field(default_factory=set)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    default_mounts: list[dict[str, Any]] = field(default_factory=list)
    context: dict[str, str] = field(default_factory=dict)

    def extend_default_mounts(self, mounts: Sequence[Mapping[str, Any]]) -> None:
        self.default_mounts += map(dict, mounts)

    def security_context(self) -> Mapping[str, str]:
        return self.context

    def ask(self, point: str, input: Mapping[str, Any], refusal: str = "") -> Decision:
        self.asked.append((point, dict(input)))
        if point in self.denied:
            raise PolicyDenied(f"{refusal}no")
        return self.answers.get(point, Decision(True))

    def require_consistent(self) -> None:
        if self.inconsistent:
            raise Inconsistent(self.inconsistent)

    def close_door(self, cause: str) -> None:
        self.closed = self.closed or cause

    def mark(self, cause: str) -> None:
        if self.strict:
            self.inconsistent = cause
        else:
            self.degraded = cause


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def container_spec(**changes: Any) -> dict[str, Any]:
    """A small specification; ``changes`` replace its parts."""
    spec: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": {"args": ["/bin/true"], "cwd": "/", "env": ["A=1"], "user": {"uid": 0, "gid": 0}},
        "root": {"path": "rootfs"},
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]},
        "windows": {"network": {"networkNamespace": "x"}},
    }
    return {**spec, **changes}


class Bench:
    """The host's parts around fakes, in a directory of the test."""

    def __init__(self, tmp: Path) -> None:
        self.tmp = tmp
        self.roots = tmp / "bundles"
        self.roots.mkdir()
        self.run_dir = tmp / "run"
        for name in ("containers", "console"):
            (self.run_dir / name).mkdir(parents=True)
        self.cgroup_top = tmp / "cgroup"
        (self.cgroup_top / "pods").mkdir(parents=True)
        self.program = tmp / "crun"
        self.program.write_text("")
        self.program.chmod(0o755)
        self.monitor = FakeMonitor()
        self.gate = FakeGate()
        self.clock = Clock()
        self.shapers: dict[str, Any] = {}
        self.provider: Any = None
        self.ctx = self.fresh_context()
        self.told: list[ContainerExit] = []
        self.ctx.exits.listen(self.told.append)

    def fresh_context(self) -> Context:
        """The parts as a new daemon on the same run directory has them."""
        settings = HostSettings(
            run_dir=str(self.run_dir),
            bundle_roots=(str(self.roots),),
            drain_grace_s=0,
            runtime=str(self.program),
        )
        timers = Timers(self.monitor.wake, self.clock)
        registry, journal = Registry(), Journal(settings.run_dir)
        cgroups = Cgroups({"pids": str(self.cgroup_top)}, None)
        exits = Exits(registry, journal, self.monitor, cgroups, timers)
        self.monitor.exits = exits
        runtime = OciRuntime(
            self.monitor,
            name=settings.runtime,
            work=f"{settings.run_dir}/containers",
            no_pivot=False,
            timeout_s=5,
        )
        return Context(
            settings,
            self.monitor,
            runtime,
            self.gate,
            ChangeLock(),
            registry,
            journal,
            cgroups,
            timers,
            exits,
            Pods(),
            Shapers(self.shapers),
            Network(self.provider),
        )

    def bundle(self, container_id: str) -> Path:
        return self.roots / container_id

    def create(self, container_id: str = "c1", spec: Any = None, scratch: str = "") -> None:
        create.create(
            self.ctx,
            container_id,
            bundle_path=str(self.bundle(container_id)),
            scratch=scratch,
            spec=container_spec() if spec is None else spec,
            activity_id="activity",
        )

    def start(self, container_id: str = "c1", **request: Any) -> int:
        return start.start(self.ctx, container_id, ExecuteRequest(**request))

    def running(self, container_id: str = "c1", **spec: Any) -> int:
        """Create and start a container; return init's pid."""
        self.create(container_id, container_spec(**spec))
        return self.start(container_id)

    def init_slot(self, container_id: str = "c1") -> int:
        init = self.ctx.registry.get(container_id).init
        assert init is not None
        return init.slot

    def wait(self, container_id: str, pid: int, timeout_ms: int = 0xFFFFFFFF) -> list[Any]:
        """Wait; the list gets the outcome when there is one."""
        outcome: list[Any] = []
        self.ctx.exits.wait(container_id, pid, timeout_ms, outcome.append)
        return outcome

    def files(self) -> list[str]:
        """Everything in the run directory and the bundles, relative paths."""
        return sorted(_walk(self.run_dir)) + sorted(_walk(self.roots))

    def config(self, container_id: str = "c1") -> Any:
        return json.loads((self.bundle(container_id) / "config.json").read_text())

    @contextmanager
    def nothing_changes(self) -> Iterator[None]:
        """Hold that files, slots, containers and records are afterwards as before."""
        before = self.state()
        yield
        assert self.state() == before

    def state(self) -> dict[str, Any]:
        return {
            "files": self.files(),
            "slots": sorted(self.monitor.slots),
            "containers": dict(self.monitor.containers),
            "records": sorted(c.id for c in self.ctx.registry.containers()),
            "pods": sorted((pod.id, *sorted(pod.members)) for pod in self.ctx.pods.pods()),
            "cgroups": sorted(_walk(self.cgroup_top)),
            "marks": (self.gate.degraded, self.gate.inconsistent),
        }


def _walk(top: Path) -> Iterator[str]:
    for directory, names, files in os.walk(top):
        for name in [*names, *files]:
            yield os.path.relpath(os.path.join(directory, name), top.parent)
