"""The record of one container and the states it goes through.

``creating -> created -> running -> terminated``, never back: a process that ends while its
start is still being answered must not come back to life as "running" (spec containers.md 16.13).
Changes of state happen in the registry, under its lock.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from uvmd.host.processes import Process
from uvmd.oci.role import Kind, Role


class State(enum.IntEnum):
    """States in the order in which a container passes them."""

    CREATING = 0
    CREATED = 1
    RUNNING = 2
    TERMINATED = 3


#: The initial exit type, and those that a delivered signal leaves behind (spec bridge.md 7).
UNEXPECTED_EXIT = "UnexpectedExit"
EXIT_TYPES = {15: "GracefulExit", 9: "ForcedExit"}


@dataclass(slots=True, eq=False)
class Container:
    """One container. Only what outlives Create is kept of the specification."""

    id: str
    activity_id: str
    role: Role = Role(Kind.STANDALONE, "")
    bundle: str = ""
    scratch: str = ""
    root: str = ""
    cgroup: str = ""
    state: State = State.CREATING
    init: Process | None = None
    exit_type: str = UNEXPECTED_EXIT
    #: The process's user (with its user string) and limits: an exec inherits them.
    user: dict[str, Any] = field(default_factory=dict, repr=False)
    rlimits: list[dict[str, Any]] | None = field(default=None, repr=False)
    owns_pid_namespace: bool = True
    stdio_allowed: bool = True
    #: Below the directory of logs; empty: no tee.
    tee_log: str = ""
    #: What the pod shares lies here: its sandbox's bundle, or a directory of its own.
    sandbox_root: str = ""
    made_bundle: bool = False
    #: What was made above it, for it or for another container's, outermost first.
    made_parents: tuple[str, ...] = ()
    made_root: bool = False
    #: Names in bundle and root that were there before: not ours to remove when a create fails.
    existed: tuple[str, ...] = ()
    #: The directory made in the container's root; empty: none.
    security_context: str = ""
    created_at: float = 0.0
    #: The host's requests, by the monitor's numbers, that made it and that are removing it.
    created_by: int = 0
    deleted_by: int = 0
    starting: bool = False
    deleting: bool = False
    notified: bool = False
    #: Its end came while its start was still being answered.
    exit_untold: bool = False
    #: Execs between their lookup and their answer.
    entering: int = 0
    execs: dict[int, Process] = field(default_factory=dict, repr=False)

    @property
    def logs(self) -> str:
        """The directory of tee logs, one for the pod."""
        return f"{self.sandbox_root or self.bundle}/logs"

    @property
    def is_sandbox(self) -> bool:
        """Whether its pod begins and ends with it."""
        return self.role.kind is Kind.SANDBOX
