"""Process records: init, exec and external processes, and who waits for them.

A record is made before its process, under the slot that the monitor will put the process in,
because the news of its exit can overtake the answer that carries its pid. Waits are entries in
a set, not threads or tasks: thousands may be outstanding for the life of a pod.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from uvmd.errors import UvmdError
from uvmd.host.timers import Timer


class ExitCode(int):
    """What a waiter is told, and the slot of whose end the host then knows all (0: not all)."""

    slot = 0


Done = Callable[[int | UvmdError], None]


class Kind(enum.Enum):
    """Which of the three a process is."""

    INIT = "init"
    EXEC = "exec"
    EXTERNAL = "external"


@dataclass(slots=True, eq=False)
class Waiter:
    """One WaitForProcess; ``done`` gets the exit code or an error, once."""

    done: Done
    timer: Timer | None = None


@dataclass(slots=True, eq=False)
class Process:
    """One process. ``pid`` is 0 until the process exists.

    ``status`` is what the monitor reaped (exit code, or minus the signal); ``exit_code`` is what
    the host is told, and set once the streams are drained too.
    """

    slot: int
    kind: Kind
    container_id: str
    args: Sequence[str] = field(default=(), repr=False)
    terminal: bool = False
    pid: int = 0
    start_time: int = 0
    status: int | None = None
    drained: bool = False
    exit_code: int | None = None
    delivered: bool = False
    #: Taken up from an earlier daemon, whose unanswered waits may still come: not forgotten yet.
    held: bool = False
    waiters: set[Waiter] = field(default_factory=set, repr=False)

    @property
    def over(self) -> bool:
        """Whether the process was reaped; its streams may still be draining."""
        return self.status is not None


def exit_code_of(status: int) -> int:
    """Return the exit code that a host is told: the status, or 128 + the signal's number."""
    return status if status >= 0 else 128 - status
