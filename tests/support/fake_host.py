"""A host in memory: the bridge's own tests and fuzzing need answers, not containers.

It keeps the order of checks that spec bridge.md 5.3 gives. Nothing blocks: pools run what
is submitted at once, or when the test says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from uvmd.errors import (
    ContainerExists,
    ContainerNotFound,
    ContainerStopped,
    Failed,
    InvalidMessage,
    InvalidState,
    ProcessNotFound,
    Refused,
    UvmdError,
    WaitTimeout,
)
from uvmd.host.doing import Doing
from uvmd.host.requests import NULL_ID, ContainerExit, ExecuteRequest
from uvmd.monitor.link import Earlier

Done = Callable[[int | UvmdError], None]
FOREVER_MS = 0xFFFF_FFFF


class FakePool:
    """Runs at once, or keeps everything until ``run_all``."""

    def __init__(self) -> None:
        self.held = False
        self.waiting: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()

    def submit(self, function: Callable[..., object], *args: Any) -> None:
        if self.held:
            self.waiting.append((function, args))
        else:
            function(*args)

    def run_all(self) -> None:
        while self.waiting:
            function, args = self.waiting.popleft()
            function(*args)


class FakeOwn:
    """Keeps nothing until told to; then one thing, for :meth:`serve`."""

    def __init__(self) -> None:
        self.takes = False
        self.job: tuple[Callable[..., object], tuple[Any, ...]] | None = None

    def keep(self, function: Callable[..., object], *args: Any) -> bool:
        if not self.takes or self.job is not None:
            return False
        self.job = function, args
        return True

    def serve(self) -> None:
        assert self.job is not None
        (function, args), self.job = self.job, None
        function(*args)


@dataclass
class FakePools:
    own: FakeOwn = field(default_factory=FakeOwn)
    work: FakePool = field(default_factory=FakePool)
    control: FakePool = field(default_factory=FakePool)
    find: FakePool = field(default_factory=FakePool)


@dataclass
class FakeTimer:
    delay_s: float
    call: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeTimers:
    """Time passes when ``pass_s`` is called; posted calls run when ``run_posted`` is."""

    def __init__(self) -> None:
        self.timers: list[FakeTimer] = []
        self.posted: deque[Callable[[], None]] = deque()

    def call_later(self, delay_s: float, call: Callable[[], None]) -> FakeTimer:
        self.timers.append(FakeTimer(delay_s, call))
        return self.timers[-1]

    def post(self, call: Callable[[], None]) -> None:
        self.posted.append(call)

    def run_posted(self) -> None:
        while self.posted:
            self.posted.popleft()()

    def pass_s(self, seconds: float) -> None:
        due = [timer for timer in self.timers if not timer.cancelled and timer.delay_s <= seconds]
        self.timers = [timer for timer in self.timers if timer not in due]
        for timer in due:
            timer.call()


@dataclass
class FakeProcess:
    pid: int
    exit_code: int | None = None
    terminal: bool = False
    waiting: list[Done] = field(default_factory=list)


@dataclass
class FakeContainer:
    id: str
    activity_id: str = ""
    creating: bool = False
    init: FakeProcess = field(default_factory=lambda: FakeProcess(0))
    execs: dict[int, FakeProcess] = field(default_factory=dict)


class FakeHost:
    """Everything that happened is in ``calls``; ``raising`` maps an operation to what it raises."""

    def __init__(self, *, sequential: bool = False, strict: bool = False, agent: bool = False) -> None:
        self.sequential = sequential
        self.strict = strict
        self.agent = agent
        self.pools = FakePools()
        self.timers = FakeTimers()
        self.containers: dict[str, FakeContainer] = {}
        self.external: dict[int, FakeProcess] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.raising: dict[str, BaseException] = {}
        self.returning: dict[str, Any] = {}
        self._listeners: list[Callable[[ContainerExit], None]] = []
        #: What earlier daemons have done, by request; which were awaited, and how they ended.
        self.earlier: dict[int, Earlier] = {}
        self.awaited: list[int] = []
        self.settled: list[tuple[int, bool]] = []
        self._next_pid = 100

    def await_request(self, request: int) -> Earlier:
        self.awaited.append(request)
        return self.earlier.get(request, Earlier())

    def settle_request(self, what: Doing, *, failed: bool) -> None:
        self.settled.append((what.number, failed))

    def on_container_exit(self, listener: Callable[[ContainerExit], None]) -> None:
        self._listeners.append(listener)

    def start_container(self, container_id: str) -> None:
        self._called("start", container_id)

    def create_container(
        self, container_id: str, *, bundle: str, scratch: str, spec: dict[str, Any] | None, activity_id: str
    ) -> None:
        self._called("create", container_id, bundle, scratch, spec, activity_id)
        if container_id in self.containers:
            raise ContainerExists(f"container {container_id}")
        if spec is None:
            raise InvalidMessage("ContainerConfig.OciSpecification: is missing")
        self.containers[container_id] = FakeContainer(container_id, activity_id, init=self._process())

    def execute(self, container_id: str, request: ExecuteRequest) -> int:
        self._called("execute", container_id, request)
        if request.in_vm:
            if not request.args and not request.command_line:
                raise Failed("no program to start")
            process = self._process(terminal=request.terminal)
            self.external[process.pid] = process
            return process.pid
        container = self._container(container_id)
        if request.oci_process is None:
            return container.init.pid
        process = self._process(terminal=bool(request.oci_process.get("terminal")))
        container.execs[process.pid] = process
        return process.pid

    def wait(self, container_id: str, pid: int, timeout_ms: int, done: Done) -> None:
        self._called("wait", container_id, pid, timeout_ms)
        process = self._find(container_id, pid, missing=ProcessNotFound)
        if process.exit_code is not None:
            done(process.exit_code)
        elif timeout_ms == 0:
            done(WaitTimeout(f"process {pid} runs"))
        else:
            process.waiting.append(done)
            if timeout_ms != FOREVER_MS:
                self.timers.call_later(timeout_ms / 1000, lambda: self._time_out(process, done))

    def signal(self, container_id: str, pid: int, signal: int) -> None:
        self._called("signal", container_id, pid, signal)
        self._find(container_id, pid, missing=ContainerNotFound)

    def shutdown(self, container_id: str, *, forced: bool) -> None:
        self._called("shutdown", container_id, forced)
        if self._container(container_id).init.exit_code is not None:
            raise ContainerStopped(f"container {container_id}")

    def resize(self, container_id: str, pid: int, *, width: int, height: int) -> None:
        self._called("resize", container_id, pid, width, height)
        if not self._find(container_id, pid, missing=ContainerNotFound).terminal:
            raise Failed(f"process {pid} has no terminal")

    def properties(self, container_id: str, types: Sequence[str]) -> dict[str, Any]:
        self._called("properties", container_id, tuple(types))
        if container_id != NULL_ID:
            self._container(container_id)
        result: dict[str, Any] = self.returning.get("properties", {})
        return result

    def modify(
        self, container_id: str, request_type: str, resource_type: str, settings: Any, has_settings: bool
    ) -> None:
        self._called("modify", container_id, request_type, resource_type, settings, has_settings)
        if resource_type not in ("Network", "PodCgroupMemoryLimit", "ContainerConstraints"):
            raise Refused(f"resource type {resource_type[:40]!r} is unknown")
        if resource_type != "PodCgroupMemoryLimit" and type(settings) is not dict:
            raise InvalidMessage("body.Request.Settings: should be an object")
        if container_id != NULL_ID:
            self._container(container_id)
        verbs = {"Network": ("Add", "Remove"), "PodCgroupMemoryLimit": ("Update",)}
        if request_type not in verbs.get(resource_type, (request_type,)):
            raise Refused(f"{resource_type} cannot be {request_type}d")

    def dump_stacks(self) -> str:
        self._called("dump_stacks")
        return str(self.returning.get("dump_stacks", "one thread\n"))

    def delete_container(self, container_id: str) -> None:
        self._called("delete", container_id)
        container = self._container(container_id)
        del self.containers[container_id]
        for process in (container.init, *container.execs.values()):
            if process.exit_code is None:
                self._exit(process, 137)

    def power_off(self) -> bool:
        self._called("power_off")
        return self.agent

    def exit_init(self, container_id: str, code: int, exit_type: str = "UnexpectedExit") -> None:
        """Let a container's init exit; waits are answered, then the exit is told."""
        container = self.containers[container_id]
        self._exit(container.init, code)
        for listener in self._listeners:
            listener(ContainerExit(container_id, container.activity_id, exit_type))

    def exit_external(self, pid: int, code: int) -> None:
        self._exit(self.external[pid], code)

    def _called(self, name: str, *facts: Any) -> None:
        self.calls.append((name, *facts))
        if name in self.raising:
            raise self.raising[name]

    def _process(self, *, terminal: bool = False) -> FakeProcess:
        self._next_pid += 1
        return FakeProcess(self._next_pid, terminal=terminal)

    def _container(self, container_id: str) -> FakeContainer:
        container = self.containers.get(container_id)
        if container is None:
            raise ContainerNotFound("no such container")
        if container.creating:
            raise InvalidState("the container is being created")
        return container

    def _find(self, container_id: str, pid: int, *, missing: type[UvmdError]) -> FakeProcess:
        if container_id == NULL_ID:
            if pid not in self.external:
                raise missing(f"no process {pid} in the VM")
            return self.external[pid]
        container = self._container(container_id)
        if pid == container.init.pid:
            return container.init
        if pid not in container.execs:
            raise ProcessNotFound(f"no process {pid}")
        return container.execs[pid]

    @staticmethod
    def _exit(process: FakeProcess, code: int) -> None:
        process.exit_code = code
        waiting, process.waiting = process.waiting, []
        for done in waiting:
            done(code)

    @staticmethod
    def _time_out(process: FakeProcess, done: Done) -> None:
        if done in process.waiting:
            process.waiting.remove(done)
            done(WaitTimeout(f"process {process.pid} runs"))
