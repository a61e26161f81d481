"""Containers for tests: one call to make, one to run, and cleaned up whatever happens."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from support import specs
from support.host import DELETE, SHUTDOWN_FORCED, ZERO_GUID, Connection, Process, code


def new_id() -> str:
    """An id as the real host makes them: 64 hex digits, never used before."""
    return secrets.token_hex(32)


@dataclass(slots=True)
class Container:
    """A created container and how to talk about it."""

    bridge: Connection
    id: str

    def init(self, **streams: Any) -> Process:
        """Start the init process."""
        return self.bridge.execute(self.id, **streams)

    def exec(self, *args: str, terminal: bool = False, env: Any = (specs.PATH,), **streams: Any) -> Process:
        process = specs.process(*args, terminal=terminal, env=env)
        return self.bridge.execute(self.id, process, **streams)

    def kill(self) -> str:
        """Ask for a forced shutdown; returns the code of the answer."""
        return code(self.bridge.ask(SHUTDOWN_FORCED, {"ContainerId": self.id, "ActivityId": ZERO_GUID}))

    def delete(self) -> None:
        self.bridge.delete(self.id)


@contextlib.contextmanager
def created(bridge: Connection, *args: str, container_id: str = "", **of_spec: Any) -> Iterator[Container]:
    """A container that runs ``args`` once its init is started; killed and deleted at the end."""
    container = Container(bridge, container_id or new_id())
    bridge.create(container.id, specs.container(*args, **of_spec))
    try:
        yield container
    finally:
        # A test may have moved on to another connection; one that failed may have none.
        with contextlib.suppress(Exception):
            if container.kill() != "SYSTEM_NOT_FOUND":
                container.bridge.wait_for_notification(container.id, timeout_s=10)
                container.bridge.ask(DELETE, {"ContainerId": container.id, "ActivityId": ZERO_GUID})


@dataclass(frozen=True, slots=True)
class Ran:
    """What a finished container left: exit code and output."""

    exit_code: int
    stdout: bytes
    stderr: bytes


def run(bridge: Connection, *args: str, stdin: bytes | None = None, **of_spec: Any) -> Ran:
    """A whole life in the host's order; nothing of it is left behind."""
    container_id = new_id()
    bridge.create(container_id, specs.container(*args, **of_spec))
    bridge.start(container_id)
    init = bridge.execute(container_id, stdin=stdin is not None, stdout=True, stderr=True)
    if stdin is not None:
        init.stdin.write(stdin)
        init.stdin.half_close()
    exit_code = init.wait()
    out, error = init.stdout.read_all(), init.stderr.read_all()
    if stdin is not None:
        init.stdin.close()
    bridge.wait_for_notification(container_id)
    bridge.delete(container_id)
    return Ran(exit_code, out, error)


def shell(script: str) -> tuple[str, str, str]:
    """Arguments that run a shell script."""
    return "/bin/sh", "-c", script
