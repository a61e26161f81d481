"""All containers and processes that the VM holds: one lock, short sections, no work inside."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from uvmd.errors import (
    ContainerExists,
    ContainerNotFound,
    ContainerStopped,
    DeadlineExceeded,
    InvalidState,
    ProcessNotFound,
    Refused,
)
from uvmd.host.containers import Container, State
from uvmd.host.processes import Kind, Process
from uvmd.host.requests import NULL_ID

#: Told ``created``, ``started``, ``exited`` or ``deleted``, and the container.
Watcher = Callable[[str, Container], None]
#: Processes that have ended and whose codes nobody has asked for.
MAX_UNTOLD: Final = 10_000
_EVENTS: Final = {State.CREATED: "created", State.RUNNING: "started", State.TERMINATED: "exited"}


class Registry:
    """Thread-safe tables, and the only place where a container changes state."""

    def __init__(self) -> None:
        self._changed: Final = threading.Condition()
        self._containers: dict[str, Container] = {}
        self._by_slot: dict[int, Process] = {}
        self._external: dict[int, Process] = {}
        self._closed = False
        self._watchers: list[Watcher] = []

    def watch(self, watcher: Watcher) -> None:
        """Have ``watcher`` called after a container was created, started, has exited or was deleted.

        On the thread that did it, so it must return at once. Before the first request.
        """
        self._watchers.append(watcher)

    # Containers

    def add(self, container: Container) -> None:
        """Enter a container in state creating.

        Raises:
            ContainerExists: the id is in use.
            Refused: the registry is closed.
        """
        with self._changed:
            if self._closed:
                raise Refused("uvmd is stopping, no container can be created")
            if container.id in self._containers:
                raise ContainerExists(f"container {container.id} exists")
            self._containers[container.id] = container

    def close(self) -> None:
        """Admit no further container."""
        with self._changed:
            self._closed = True

    def require_free(self, container_id: str) -> None:
        """Raise ContainerExists if the id is in use."""
        if container_id in self._containers:
            raise ContainerExists(f"container {container_id} exists")

    def remove(self, container: Container) -> None:
        """Forget a container and its init. Its execs go when they have settled."""
        with self._changed:
            if self._containers.get(container.id) is container:
                del self._containers[container.id]
            if container.init is not None:
                self._by_slot.pop(container.init.slot, None)
            self._changed.notify_all()
        if container.state is not State.CREATING:
            self._tell("deleted", container)

    def get(self, container_id: str) -> Container:
        """Return a container that has been created.

        Raises:
            ContainerNotFound: the id is unknown.
            InvalidState: it is still being created.
        """
        container = self._containers.get(container_id)
        if container is None:
            raise ContainerNotFound(f"container {container_id!r:.140} is not known")
        if container.state is State.CREATING:
            raise InvalidState(f"container {container_id} is still being created")
        return container

    def find(self, container_id: str) -> Container | None:
        """Return a container in any state, None if the id is unknown."""
        return self._containers.get(container_id)

    def containers(self) -> list[Container]:
        """Return all containers, those in creation too."""
        with self._changed:
            return list(self._containers.values())

    def advance(self, container: Container, state: State) -> bool:
        """Move a container on to ``state``; False, and nothing, if it is there or past it."""
        with self._changed:
            if container.state >= state:
                return False
            before, container.state = container.state, state
            self._changed.notify_all()
            if before is State.CREATED and state is State.TERMINATED and container.starting:
                container.exit_untold = True  # "started" comes first, and only if it was
                return True
        self._tell(_EVENTS[state], container)
        return True

    def _tell(self, event: str, container: Container) -> None:
        for watcher in self._watchers:
            watcher(event, container)

    @contextmanager
    def starting(self, container: Container, *, again: bool = False) -> Iterator[None]:
        """Hold the container's one chance to be started.

        ``again``: an earlier daemon has held it for the same request.

        Raises:
            InvalidState: it is being started, was started, or is being deleted.
        """
        with self._changed:
            was_started = container.state is not State.CREATED and not again
            if container.starting or container.deleting or was_started:
                raise InvalidState(
                    f"container {container.id} is {_condition(container)}, it cannot be started"
                )
            container.starting = True
        started = False
        try:
            yield
            started = True
        finally:
            with self._changed:
                container.starting = False
                untold, container.exit_untold = container.exit_untold, False
                self._changed.notify_all()
            if untold:
                for event in ("started", "exited") if started else ("exited",):
                    self._tell(event, container)

    @contextmanager
    def entering(self, container: Container) -> Iterator[None]:
        """Keep a running container from being deleted while a process is put into it.

        Raises:
            ContainerStopped: its init is gone.
            InvalidState: it was not started, or is being deleted.
        """
        with self._changed:
            if container.state is State.TERMINATED or (container.init is not None and container.init.over):
                raise ContainerStopped(f"container {container.id} has stopped")
            if container.deleting or container.state is not State.RUNNING:
                raise InvalidState(f"container {container.id} is {_condition(container)}, not running")
            container.entering += 1
        try:
            yield
        finally:
            with self._changed:
                container.entering -= 1
                self._changed.notify_all()

    @contextmanager
    def deleting(self, container: Container, wait_s: float) -> Iterator[None]:
        """Mark a container as being deleted, once nothing is being started in it.

        The mark stays when the body succeeds.

        Raises:
            InvalidState: it runs, or is being deleted already.
            DeadlineExceeded: a start or exec in it did not end in ``wait_s``.
        """
        with self._changed:
            if container.deleting:
                raise InvalidState(f"container {container.id} is being deleted")
            if container.state is State.RUNNING and not (container.init is not None and container.init.over):
                raise InvalidState(f"container {container.id} is running, it cannot be deleted")
            container.deleting = True
            idle = self._changed.wait_for(lambda: not container.starting and not container.entering, wait_s)
            running = container.state is State.RUNNING and not (
                container.init is not None and container.init.over
            )
            if not idle or running:
                container.deleting = False
                if running:
                    raise InvalidState(f"container {container.id} is running, it cannot be deleted")
                raise DeadlineExceeded(f"container {container.id}: a process is still being started in it")
        try:
            yield
        except BaseException:
            container.deleting = False
            raise

    def wait_created(self, container: Container, wait_s: float) -> bool:
        """Wait until the container's create has ended; False if it failed, or took too long."""
        with self._changed:
            self._changed.wait_for(
                lambda: container.state is not State.CREATING or container.id not in self._containers, wait_s
            )
            return container.state is not State.CREATING

    def wait_terminated(self, container: Container, wait_s: float) -> bool:
        """Wait until the container's init is gone and drained; False when the time is up."""
        with self._changed:
            return self._changed.wait_for(lambda: container.state is State.TERMINATED, wait_s)

    # Processes

    def require_room(self) -> None:
        """Raise Refused when too many execs and external processes have ended that nobody waited for.

        Their codes are kept, here and in the monitor, for a wait that may yet come.
        """
        with self._changed:
            # Counted only when it may be so: nearly always there are not that many processes.
            if len(self._by_slot) < MAX_UNTOLD:
                return
            untold = sum(one.over and one.kind is not Kind.INIT for one in self._by_slot.values())
        if untold >= MAX_UNTOLD:
            raise Refused(
                f"{MAX_UNTOLD} processes have ended that nobody has waited for:"
                " wait for some of them, or delete their containers"
            )

    def expect(self, process: Process) -> None:
        """Make a slot's process known before it exists."""
        with self._changed:
            self._by_slot[process.slot] = process

    def by_slot(self, slot: int) -> Process | None:
        """Return the process of a slot."""
        return self._by_slot.get(slot)

    def started(self, process: Process, pid: int) -> None:
        """Enter a process under its pid."""
        with self._changed:
            process.pid = pid
            if process.kind is Kind.EXTERNAL:
                self._external[pid] = process
            elif process.kind is Kind.EXEC:
                container = self._containers.get(process.container_id)
                if container is not None:
                    container.execs[pid] = process

    def forget(self, process: Process) -> None:
        """Take a process out of every table."""
        with self._changed:
            self._by_slot.pop(process.slot, None)
            if process.kind is Kind.EXTERNAL:
                if self._external.get(process.pid) is process:
                    del self._external[process.pid]
            elif process.kind is Kind.EXEC:
                container = self._containers.get(process.container_id)
                if container is not None and container.execs.get(process.pid) is process:
                    del container.execs[process.pid]

    def process(self, container_id: str, pid: int) -> Process:
        """Return a process of a container, or an external one for the VM's id.

        Raises:
            ContainerNotFound, InvalidState: as :meth:`get`.
            ProcessNotFound: the pid is unknown there.
        """
        if container_id == NULL_ID:
            found = self._external.get(pid)
        else:
            container = self.get(container_id)
            init = container.init
            found = init if init is not None and init.pid == pid else container.execs.get(pid)
        if found is None:
            raise ProcessNotFound(
                f"no process {pid} in {'the VM' if container_id == NULL_ID else container_id}"
            )
        return found

    def external(self) -> list[Process]:
        """Return the external processes."""
        with self._changed:
            return list(self._external.values())


def _condition(container: Container) -> str:
    if container.deleting:
        return "being deleted"
    return "being started" if container.starting else container.state.name.lower()
