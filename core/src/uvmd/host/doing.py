"""For which request of the host a thread works, and what an earlier daemon had done of it.

A request that the monitor hands over again may have been begun, or finished but for its
answer, by a daemon that was killed. Operations ask here, and only here, whether it was.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from uvmd.host.bounded import Bounded


class Earlier(Protocol):
    """What the monitor knows of a request that an earlier daemon was given."""

    @property
    def done(self) -> frozenset[str]: ...
    @property
    def notes(self) -> Mapping[str, bytes]: ...


@dataclass(slots=True)
class Doing:
    """One request. ``number`` 0: the daemon does it for itself, or on a test's behalf."""

    number: int = 0
    again: bool = False
    done: frozenset[str] = frozenset()
    notes: Mapping[str, bytes] = field(default_factory=dict)
    #: Whether an answer of the policy was taken from an earlier daemon's notes.
    recalled: bool = False
    #: The time that it may take, where somebody watches it.
    bounded: Bounded | None = None
    #: What the policy is being asked, and the name by which that is remembered.
    named: tuple[tuple[Any, ...], str] | None = None


_NOTHING = Doing()
_here = threading.local()


def doing() -> Doing:
    """Return what the calling thread is doing."""
    found: Doing = getattr(_here, "doing", _NOTHING)
    return found


def number() -> int:
    """Return the number of the request for which the calling thread works, or 0."""
    return doing().number


class working_for:
    """Have the calling thread work for a request. A class, since it is on every request's way."""

    __slots__ = ("_before", "_doing")

    def __init__(self, what: Doing) -> None:
        self._doing = what

    def __enter__(self) -> None:
        self._before = doing()
        _here.doing = self._doing

    def __exit__(self, *_: object) -> None:
        _here.doing = self._before
