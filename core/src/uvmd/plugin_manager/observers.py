"""Plugins that are told what happened: a bounded queue and a thread for each.

An observer can be slow, hang or raise: the request that it hears about never notices.
What finds the queue full is counted and dropped. The first event after a silence is told at
once; those that follow close behind it together, since waking a thread for each would cost
the requests more than all that is told.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence

log = logging.getLogger(__name__)

LIMIT = 1024
#: Between two wakings of an observer's thread.
REST_S = 0.05
#: Python runs one thread at a time: so much is told, and then others have a turn.
_AT_ONCE = 16
_TURN_S = 0.001


class Observer:
    """One plugin's function behind its queue. The thread starts with the first event."""

    def __init__(self, name: str, function: Callable[..., object], limit: int = LIMIT) -> None:
        self.name = name
        self.dropped = 0
        self._function = function
        self._limit = limit
        self._queue: deque[tuple[str, Iterable[object]]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._sleeping = True
        self._stopping = threading.Event()
        self._failed = False

    def tell(self, argument: str, events: Iterable[object]) -> None:
        """Queue what happened, to be told one after the other; never blocks and never raises."""
        with self._changed:
            if self._stopping.is_set():
                return
            if len(self._queue) >= self._limit:
                self.dropped += 1
                return
            self._queue.append((argument, events))
            if self._thread is None:
                thread = threading.Thread(target=self._serve, name=f"observer-{self.name}", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    self._queue.pop()
                    self.dropped += 1
                    return
                self._thread = thread
            if self._sleeping:
                self._changed.notify()

    def stop(self, timeout_s: float) -> None:
        """Take no more, and wait until what is queued was told or the time is up."""
        with self._changed:
            self._stopping.set()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._sleeping = True
                while not self._queue:
                    if self._stopping.is_set():
                        return
                    self._changed.wait()
                self._sleeping = False
            for _ in range(_AT_ONCE):
                if not self._queue:
                    break
                self._tell_next()
            self._stopping.wait(_TURN_S if self._queue else REST_S)

    def _tell_next(self) -> None:
        argument, events = self._queue.popleft()
        for event in events:
            try:
                self._function(**{argument: event})
            except Exception as error:
                # Once: an observer that fails at every event must not fill the log.
                if not self._failed:
                    self._failed = True
                    extra = {"plugin": self.name, "error": type(error).__name__}
                    log.warning("an observer failed, ignoring", extra=extra)


class Observers:
    """The observers of one kind of event; the events are told under ``argument``."""

    def __init__(self, observers: Sequence[Observer], argument: str) -> None:
        self._observers = tuple(observers)
        self._argument = argument

    def __bool__(self) -> bool:
        """Whether anyone listens; lets the teller save the work of making an event."""
        return bool(self._observers)

    def tell(self, event: object) -> None:
        """Tell all of them, some time soon."""
        self.tell_all((event,))

    def tell_all(self, events: Iterable[object]) -> None:
        """Tell all of them of several that belong together; who is too slow loses them as one.

        ``events`` is gone over on the thread of each observer, not on the caller's.
        """
        for observer in self._observers:
            observer.tell(self._argument, events)

    def dropped(self) -> dict[str, int]:
        """How many events each has lost because it was slow, by plugin."""
        return {observer.name: observer.dropped for observer in self._observers}

    def stop(self, timeout_s: float = 1.0) -> None:
        """End their threads."""
        for observer in self._observers:
            observer.stop(timeout_s)
