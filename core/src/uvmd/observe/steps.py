"""Where the time of a request goes: the steps that are taken for it, noted while somebody listens.

A room opens a step around what may take long, ``with step("policy", point):``. The thread that
serves a request for which somebody listens has a trace; on any other thread a step is one look
at that and nothing else. Imports nothing of ours, so that every room may open steps.

A step is named by constants of this project and the names of declared things (enforcement
points, fields): never by what a host sent.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from sys import intern
from time import monotonic_ns
from types import TracebackType
from typing import Any, Final, NamedTuple

#: Of one request; those that come later are part of the step that they are in.
MOST_STEPS: Final = 256
#: The error of a step that was under way when its request was answered.
UNFINISHED: Final = "unfinished"


class Step(NamedTuple):
    """One step. ``parent`` is its number among the steps, -1 the request; times are monotonic."""

    name: str
    parent: int
    began_ns: int
    ended_ns: int
    error: str


class Trace:
    """The steps of one request. Filled by one thread after the other, read when it was answered."""

    __slots__ = ("_at", "_notes", "began_ns")

    def __init__(self, began_ns: int) -> None:
        self.began_ns = began_ns
        #: Kind, what, parent, began, ended (0: not yet) and error.
        self._notes: list[list[Any]] = []
        self._at = -1

    def note(self, kind: str, began_ns: int) -> None:
        """Note a step that ends now."""
        self._notes.append([kind, "", self._at, began_ns, monotonic_ns(), ""])

    def take(self) -> list[list[Any]]:
        """Return what was noted, for :func:`steps_of`. A thread that still works adds nothing to it."""
        taken, self._notes = self._notes, []
        return taken


def steps_of(notes: list[list[Any]], latest_ns: int) -> Iterator[Step]:
    """Yield the steps of a request that was answered at ``latest_ns``, in the order of their begin."""
    for kind, what, parent, began, ended, error in notes:
        # There are few names, and whoever keeps spans keeps many of them.
        name = intern(f"{kind} {what}") if what else kind
        if 0 < ended <= latest_ns:
            yield Step(name, parent, began, ended, error)
        elif began <= latest_ns:
            yield Step(name, parent, began, latest_ns, UNFINISHED)


class _Here(threading.local):
    trace: Trace | None = None


_here = _Here()
_NOTHING: Final = nullcontext()


def step(kind: str, what: str = "") -> AbstractContextManager[None]:
    """Note what is done in the block as a step of the request that the thread serves."""
    trace = _here.trace
    return _NOTHING if trace is None else _Noting(trace, kind, what)


def followed() -> Trace | None:
    """Return the trace of the request that the calling thread serves, if somebody listens."""
    return _here.trace


def follow(trace: Trace | None) -> None:
    """Have the calling thread's steps noted there from now on."""
    _here.trace = trace


class _Noting:
    __slots__ = ("_note", "_trace")

    def __init__(self, trace: Trace, kind: str, what: str) -> None:
        self._trace = trace
        self._note: list[Any] = [kind, what, -1, 0, 0, ""]

    def __enter__(self) -> None:
        trace, note = self._trace, self._note
        notes = trace._notes
        note[2] = trace._at
        if len(notes) < MOST_STEPS:
            trace._at = len(notes)
            notes.append(note)
        note[3] = monotonic_ns()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        note = self._note
        note[4] = monotonic_ns()
        self._trace._at = note[2]
        if kind is not None:
            # Its text may quote what was asked for.
            note[5] = kind.__name__
