"""Small thread pools for the work that blocks.

Threads come when there is work and none is free, and go when they have been idle for a while:
an idle daemon has those that read. Not concurrent.futures: its threads stay for ever, and nobody
here waits for a result.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

log = logging.getLogger(__name__)

STACK_BYTES: Final = 512 * 1024
_IDLE_S: Final = 30.0


Job = tuple[Callable[..., object], tuple[Any, ...]]


def _do(pool: str, function: Callable[..., object], args: tuple[Any, ...]) -> None:
    try:
        function(*args)
    except Exception:
        log.exception("a request's thread failed, ignoring", extra={"pool": pool})


class _Worker:
    """A thread of a pool. It waits for its baton, which whoever gives it a job releases."""

    __slots__ = ("baton", "job")

    def __init__(self, job: Job) -> None:
        self.baton = threading.Lock()
        self.baton.acquire()
        self.job: Job | None = job


class Pool:
    """At most ``size`` threads that run submitted functions in the order of arrival.

    Of those that are idle the last one goes on: its stack and its core's caches are warm, and
    the others may go.
    """

    def __init__(self, name: str, size: int, idle_s: float = _IDLE_S) -> None:
        self._name = name
        self._size = size
        self._idle_s = idle_s
        self._mutex = threading.Lock()
        #: What waits for a thread; empty while one is idle.
        self._work: deque[Job] = deque()
        self._idle: list[_Worker] = []
        self._threads = 0
        self._made = 0

    def submit(self, function: Callable[..., object], *args: Any) -> None:
        """Have ``function(*args)`` called on a thread of the pool. What it raises is logged."""
        job = function, args
        with self._mutex:
            if self._idle or self._threads == self._size:
                self._hand_over(job)
                return
            self._threads += 1
            self._made += 1
            name = f"{self._name}-{self._made}"
        try:
            threading.Thread(target=self._serve, args=(_Worker(job),), name=name, daemon=True).start()
        except RuntimeError:
            # No thread to be had (memory, pids limit): those that are there serve it.
            with self._mutex:
                self._threads -= 1
                if self._threads == 0:
                    raise
                self._hand_over(job)

    def _hand_over(self, job: Job) -> None:
        if self._idle:
            worker = self._idle.pop()
            worker.job = job
            worker.baton.release()
        else:
            self._work.append(job)

    @property
    def busy(self) -> int:
        """How many calls are running or queued."""
        with self._mutex:
            return self._threads - len(self._idle) + len(self._work)

    def _serve(self, worker: _Worker) -> None:
        while (job := self._next(worker)) is not None:
            _do(self._name, *job)
            del job  # an idle thread must not keep the last request's data alive

    def _next(self, worker: _Worker) -> Job | None:
        """Wait for a job; None when there was none for a while, and the thread is to end."""
        if worker.job is None:
            with self._mutex:
                if self._work:
                    return self._work.popleft()
                self._idle.append(worker)
            if not worker.baton.acquire(timeout=self._idle_s):
                with self._mutex:
                    if worker in self._idle:
                        self._idle.remove(worker)
                        self._threads -= 1
                        return None
                # It was given one just now.
                worker.baton.acquire()
        job, worker.job = worker.job, None
        return job


class Own:
    """What a thread that hands out jobs keeps for itself: one at a time, done once it is free."""

    def __init__(self) -> None:
        self._thread: int | None = None
        self._job: Job | None = None

    def belong(self) -> None:
        """Keep jobs of the calling thread from now on."""
        self._thread = threading.get_ident()

    def keep(self, function: Callable[..., object], *args: Any) -> bool:
        """Have the calling thread do it; False if it is another one, or has one already."""
        if self._job is not None or threading.get_ident() != self._thread:
            return False
        self._job = function, args
        return True

    def serve(self) -> None:
        """Do what was kept, if anything was. What it raises is logged."""
        job, self._job = self._job, None
        if job is not None:
            _do("own", *job)


class Pools:
    """The daemon's pools: finders, workers, and control (signals, shutdown, properties)."""

    def __init__(self) -> None:
        threading.stack_size(STACK_BYTES)
        self.own = Own()
        self.work = Pool("work", 16)
        self.control = Pool("control", 4)
        self.find = Pool("find", 64)
