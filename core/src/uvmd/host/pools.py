"""Small thread pools for the work that blocks.

Threads come when there is work and none is free, and go when they have been idle for a while:
an idle daemon has one thread. Not concurrent.futures: its threads stay for ever, and nobody
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


class Pool:
    """At most ``size`` threads that run submitted functions in the order of arrival."""

    def __init__(self, name: str, size: int, idle_s: float = _IDLE_S) -> None:
        self._name = name
        self._size = size
        self._idle_s = idle_s
        self._work: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._changed = threading.Condition()
        self._threads = 0
        self._idle = 0
        self._made = 0

    def submit(self, function: Callable[..., object], *args: Any) -> None:
        """Have ``function(*args)`` called on a thread of the pool. What it raises is logged."""
        with self._changed:
            self._work.append((function, args))
            if self._idle >= len(self._work):
                self._changed.notify()
                return
            if self._threads == self._size:
                return
            self._threads += 1
            self._made += 1
            name = f"{self._name}-{self._made}"
        try:
            threading.Thread(target=self._serve, name=name, daemon=True).start()
        except RuntimeError:
            # No thread to be had (memory, pids limit): those that run serve the queue.
            with self._changed:
                self._threads -= 1
                if self._threads == 0:
                    self._work.pop()
                    raise

    @property
    def busy(self) -> int:
        """How many calls are running or queued."""
        with self._changed:
            return self._threads - self._idle + len(self._work)

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                while not self._work:
                    if not self._changed.wait(self._idle_s) and not self._work:
                        self._idle -= 1
                        self._threads -= 1
                        return
                self._idle -= 1
                function, args = self._work.popleft()
            try:
                function(*args)
            except Exception:
                log.exception("a request's thread failed, ignoring", extra={"pool": self._name})
            # An idle thread must not keep the last request's data alive.
            del function, args


class Pools:
    """The daemon's pools: finders, workers, and control (signals, shutdown, properties)."""

    def __init__(self) -> None:
        threading.stack_size(STACK_BYTES)
        self.work = Pool("work", 16)
        self.control = Pool("control", 4)
        self.find = Pool("find", 64)
