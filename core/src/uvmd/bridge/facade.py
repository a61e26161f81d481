"""What the bridge needs of the host; ``host/host.py`` is the one that serves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from uvmd.errors import UvmdError

if TYPE_CHECKING:
    from uvmd.host.doing import Doing, Earlier
    from uvmd.host.requests import ContainerExit, ExecuteRequest


class Pool(Protocol):
    def submit(self, function: Callable[..., object], /, *args: Any) -> object: ...


class Own(Protocol):
    def keep(self, function: Callable[..., object], /, *args: Any) -> bool: ...


class Pools(Protocol):
    @property
    def own(self) -> Own: ...

    @property
    def work(self) -> Pool: ...

    @property
    def control(self) -> Pool: ...

    @property
    def find(self) -> Pool: ...


class Timer(Protocol):
    def cancel(self) -> object: ...


class Timers(Protocol):
    """Calls on the poll thread; ``post`` alone may be used from other threads."""

    def call_later(self, delay_s: float, call: Callable[[], None], /) -> Timer: ...

    def post(self, call: Callable[[], None], /) -> object: ...


class HostFacade(Protocol):
    """Every operation raises one of ``uvmd.errors`` when it is not done."""

    @property
    def sequential(self) -> bool: ...

    @property
    def strict(self) -> bool: ...

    @property
    def pools(self) -> Pools: ...

    @property
    def timers(self) -> Timers: ...

    def await_request(self, request: int) -> Earlier:
        """Wait until nothing that an earlier daemon began for a request is under way."""

    def settle_request(self, what: Doing, *, failed: bool) -> None:
        """Take away what earlier daemons made for a request and this one did not take up."""

    def on_container_exit(self, listener: Callable[[ContainerExit], None]) -> object: ...

    def start_container(self, container_id: str) -> None: ...

    def create_container(
        self, container_id: str, *, bundle: str, scratch: str, spec: dict[str, Any] | None, activity_id: str
    ) -> None: ...

    def execute(self, container_id: str, request: ExecuteRequest) -> int: ...

    def wait(
        self, container_id: str, pid: int, timeout_ms: int, done: Callable[[int | UvmdError], None]
    ) -> None: ...

    def signal(self, container_id: str, pid: int, signal: int) -> None: ...

    def shutdown(self, container_id: str, *, forced: bool) -> None: ...

    def resize(self, container_id: str, pid: int, *, width: int, height: int) -> None: ...

    def properties(self, container_id: str, types: Sequence[str]) -> dict[str, Any]: ...

    def modify(
        self, container_id: str, request_type: str, resource_type: str, settings: Any, has_settings: bool
    ) -> None: ...

    def dump_stacks(self) -> str: ...

    def delete_container(self, container_id: str) -> None: ...

    def power_off(self) -> bool: ...
