"""What the monitor tells its daemon, as values; the link's users take them from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that has run to completion.

    ``status`` is the exit code, or minus the signal. ``output`` is stdout and stderr as
    they came, cut to the limit. ``pid`` is the process adopted from the pid file, or 0.
    """

    status: int
    timed_out: bool
    output: bytes
    pid: int


@dataclass(frozen=True, slots=True)
class SlotState:
    """One slot as the monitor knows it; pid 0 while it has no process.

    ``request`` is the host's request that made it, ``told`` whether the host was told of the
    end, ``signalled`` the last of SIGTERM and SIGKILL that was sent for the host.
    """

    slot: int
    pid: int
    status: int | None
    drained: bool
    terminal: bool
    label: str
    request: int = 0
    told: bool = False
    signalled: int = 0


@dataclass(frozen=True, slots=True)
class Earlier:
    """What is known of a request that an earlier daemon was given.

    ``done`` names what it has done once, ``notes`` are what it noted.
    """

    done: frozenset[str] = frozenset()
    notes: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MonitorState:
    """The answer to HELLO. ``daemon_starts`` is 1 for the first daemon of this monitor.

    ``services`` are the slots of long-lived helpers, which are nobody's container.
    ``requests`` are those of the host that have no answer yet; they follow as events.
    """

    version: int
    slots: tuple[SlotState, ...]
    daemon_starts: int
    services: tuple[SlotState, ...] = ()
    requests: frozenset[int] = frozenset()


class Events(Protocol):
    """What the monitor tells unasked; everything is called on the thread that polls."""

    def bridge_up(self, generation: int, state: int) -> None:
        """Tell of a connection: a new one, or with the state that an earlier daemon gave it."""

    def bridge_frame(self, generation: int, request: int, frame: bytes) -> None:
        """Hand over a frame of the host, header included, its size checked."""

    def bridge_again(self, generation: int, request: int, attempt: int, state: int, frame: bytes) -> None:
        """Hand over a frame that came while another daemon was there, or none.

        ``attempt`` is how many daemons had it before, ``state`` its connection's.
        """

    def bridge_unsent(self, request: int, slot: int, frame: bytes) -> None:
        """Hand back an outgoing frame that was not wholly written, maybe by an earlier daemon."""

    def bridge_down(self, generation: int, reason: str) -> None:
        """Tell that a connection has ended. Frames sent to it from now on still come back."""

    def exited(self, slot: int, pid: int, status: int) -> None:
        """Tell that a slot's process was reaped: exit code, or minus the signal."""

    def drained(self, slot: int) -> None:
        """Tell that everything the process wrote is with the host; comes after ``exited``."""

    def stop(self, reason: str) -> None:
        """Ask to kill and delete all containers, then to call ``Link.finish``."""
