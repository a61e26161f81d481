"""The one change lock of the VM.

In a strict VM a change has the VM for itself, from its first question to the end of its
apply: the policy's metadata has one snapshot, and two changes that each look right may be
wrong together. Elsewhere changes share the VM and exclude each other only where they
name the same thing (a path, a device, a container).

A request asks for all its keys at once and gets all or waits, in the order of arrival;
so two requests cannot hold what the other wants, and a stream of small changes cannot
starve one that wants the whole VM. A holder that never returns keeps what it holds:
:meth:`ChangeLock.table` says who that is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from uvmd.errors import DeadlineExceeded
from uvmd.observe.steps import step

#: A host gives up after 300 s; every request but a wait is answered before that.
REQUEST_LIMIT_S = 240.0


class Held(NamedTuple):
    """One line of the table: who holds or waits, for what, and for how long already."""

    who: str
    keys: tuple[str, ...]
    exclusive: bool
    waiting: bool
    seconds: float


class _Claim:
    """One request's place: first in the queue, then among the holders."""

    __slots__ = ("exclusive", "granted", "keys", "since", "thread", "who")

    def __init__(self, who: str, keys: frozenset[str], exclusive: bool, since: float) -> None:
        self.who = who
        self.keys = keys
        self.exclusive = exclusive
        self.since = since
        self.thread = threading.get_ident()
        #: Made only by those that have to wait.
        self.granted: threading.Event | None = None

    def excludes(self, other: _Claim) -> bool:
        return self.exclusive or other.exclusive or not self.keys.isdisjoint(other.keys)


class ChangeLock:
    """See the module. Waits in arrival order; not re-entrant."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._mutex = threading.Lock()
        self._holders: list[_Claim] = []
        self._queue: list[_Claim] = []

    @contextmanager
    def hold(
        self,
        keys: Iterable[str] = (),
        exclusive: bool | Callable[[], bool] = False,
        *,
        deadline: float | None = None,
        who: str = "",
    ) -> Iterator[None]:
        """Hold ``keys``, or the whole VM when ``exclusive``.

        ``exclusive`` may be a function, ``lambda: gate.strict`` say: it is asked again
        once the lock is held, because a policy may have come into force in between.
        ``deadline`` is on the monotonic clock; the default is the limit of a request.

        Raises:
            DeadlineExceeded: others held it until then.
        """
        if deadline is None:
            deadline = self._clock() + REQUEST_LIMIT_S
        names = frozenset(keys)
        who = who or threading.current_thread().name
        claim = self._acquire(names, exclusive() if callable(exclusive) else exclusive, deadline, who)
        try:
            if callable(exclusive) and exclusive() and not claim.exclusive:
                self._release(claim)
                claim = self._acquire(names, True, deadline, who)
            yield
        finally:
            self._release(claim)

    def table(self) -> tuple[Held, ...]:
        """Who holds and who waits, holders first; for people."""
        now = self._clock()
        with self._mutex:
            return tuple(
                Held(claim.who, tuple(sorted(claim.keys)), claim.exclusive, waiting, now - claim.since)
                for waiting, claims in ((False, self._holders), (True, self._queue))
                for claim in claims
            )

    def _acquire(self, keys: frozenset[str], exclusive: bool, deadline: float, who: str) -> _Claim:
        claim = _Claim(who, keys, exclusive, self._clock())
        with self._mutex:
            if any(holder.thread == claim.thread for holder in self._holders):
                raise RuntimeError(f"{who} asks for the change lock while it holds it")
            ahead = (*self._holders, *self._queue)
            if not any(claim.excludes(other) for other in ahead):
                self._holders.append(claim)
                return claim
            claim.granted = threading.Event()
            self._queue.append(claim)
        with step("lock"):
            granted = claim.granted.wait(max(0.0, deadline - self._clock()))
        if granted:
            return claim
        with self._mutex:
            if claim.granted.is_set():  # granted between the timeout and here
                return claim
            self._queue.remove(claim)
            # Those behind may have waited for this one only.
            self._grant()
            holders = ", ".join(sorted(holder.who for holder in self._holders if holder.excludes(claim)))
        raise DeadlineExceeded(f"{who}: still waiting for {holders or 'an earlier request'} to finish")

    def _release(self, claim: _Claim) -> None:
        with self._mutex:
            if claim in self._holders:
                self._holders.remove(claim)
                self._grant()

    def _grant(self) -> None:
        """Let in everyone who excludes neither a holder nor somebody who came earlier."""
        still: list[_Claim] = []
        for claim in self._queue:
            if any(claim.excludes(other) for other in (*self._holders, *still)):
                still.append(claim)
                continue
            claim.since = self._clock()
            self._holders.append(claim)
            if claim.granted is not None:
                claim.granted.set()
        self._queue = still
