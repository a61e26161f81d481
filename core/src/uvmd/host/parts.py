"""What the host is put together from: the monitor's link, the gate, the lock, and its settings.

The first three are named here by what the host uses of them, so that a test can stand in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from uvmd.api.policy import Decision
from uvmd.host.doing import Earlier
from uvmd.host.requests import Ports
from uvmd.oci.runtime import DEFAULT_PATH, Runner


class Slots(Runner, Protocol):
    """The part of the monitor's link that the host uses (``monitor.link.Link``)."""

    def new_slot(self) -> int: ...

    def open_slot(
        self, slot: int, *, terminal: bool = False, console_socket: str = "", label: str = ""
    ) -> None: ...

    def connect(
        self,
        slot: int,
        ports: Ports,
        *,
        redial: bool = False,
        tee_fd: int | None = None,
        discard: bool = False,
        deadline_s: float = 30,
    ) -> None: ...

    def spawn(
        self,
        slot: int,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str,
        terminal: bool = False,
        ports: Ports,
        discard: bool = False,
        label: str = "",
    ) -> int: ...

    def kill(self, slot: int, signal: int) -> None: ...

    def resize(self, slot: int, rows: int, columns: int) -> None: ...

    def stop_redial(self, slot: int) -> None: ...

    def release(self, slot: int) -> None: ...

    def note(self, name: str, value: bytes = b"") -> None: ...

    def await_request(self, request: int) -> Earlier: ...

    def skip_slots(self, highest: int) -> None: ...

    def earlier_slots(self, request: int) -> list[int]: ...

    def wake(self) -> None: ...


class MonitorState(Protocol):
    """The monitor's answer to HELLO; its slots are ``monitor.link.SlotState``."""

    @property
    def slots(self) -> Sequence[Any]: ...

    @property
    def requests(self) -> frozenset[int]: ...


class Link(Slots, Protocol):
    """The link, with what only the start needs."""

    def hello(self) -> MonitorState: ...


class Policy(Protocol):
    """The part of the gate that operations use (``policy.gate.Gate``)."""

    @property
    def strict(self) -> bool: ...

    @property
    def wants_user_info(self) -> bool: ...

    @property
    def inconsistent(self) -> str | None: ...

    @property
    def degraded(self) -> str | None: ...

    def ask(self, point: str, input: Mapping[str, Any], refusal: str = "") -> Decision: ...

    def extend_default_mounts(self, mounts: Sequence[Mapping[str, Any]]) -> None: ...

    def security_context(self) -> Mapping[str, str]: ...

    def require_consistent(self) -> None: ...

    def mark(self, cause: str) -> None: ...

    def close_door(self, cause: str) -> None: ...


class Lock(Protocol):
    """The VM's change lock (``host.locks.ChangeLock``)."""

    def hold(
        self, keys: Iterable[str] = (), exclusive: bool | Callable[[], bool] = False, *, who: str = ""
    ) -> AbstractContextManager[None]: ...


@dataclass(frozen=True, slots=True)
class HostSettings:
    """What of the configuration the host needs; the defaults are those of ``daemon.config``."""

    run_dir: str = "/run/uvmd"
    bundle_roots: tuple[str, ...] = ("/run/gcs", "/run/mounts")
    runtime: str = ""
    runtime_timeout_s: float = 60.0
    pods_cgroup: str = "/pods"
    reserve_bytes: int = 192 << 20
    drain_grace_s: float = 10.0
    agent: bool = False
    sequential: bool = False
    #: Where runtimes are looked for; the monitor looks for external programs in its own PATH.
    path: str = DEFAULT_PATH
    sys_root: str = "/sys"
    dev_root: str = "/dev"
