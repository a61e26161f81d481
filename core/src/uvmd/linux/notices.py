"""One thread that waits for the kernel's notices and has someone look at each."""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Final

from uvmd.linux.memory_events import Notice

log = logging.getLogger(__name__)

#: Looks, and is told whether there was a notice or its time came; returns after how many
#: seconds it wants to look again without a notice, if at all.
Look = Callable[[bool], float | None]


class _Watched:
    __slots__ = ("due", "look", "notice")

    def __init__(self, notice: Notice, look: Look) -> None:
        self.notice = notice
        self.look = look
        self.due: float | None = None


class Notices:
    """Looks are called one at a time, on the thread, which begins with the first notice added."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock: Final = threading.Lock()
        self._poller = select.epoll()
        self._watched: dict[int, _Watched] = {}
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poller.register(self._wake, select.EPOLLIN)
        self._thread: threading.Thread | None = None

    def add(self, notice: Notice, look: Look, *, at_once: bool = False) -> None:
        """Have ``look`` called whenever ``notice`` is ready. The notice is ours from now on.

        ``at_once``: the first look is due now, for what was there before anybody listened.
        """
        with self._lock:
            watched = self._watched[notice.fd] = _Watched(notice, look)
            if at_once:
                watched.due = self._clock()
                os.eventfd_write(self._wake, 1)
            self._poller.register(notice.fd, notice.mask)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="notices", daemon=True)
                self._thread.start()

    def remove(self, notice: Notice) -> None:
        """Listen no more; close the notice. A look that has begun may still end after this."""
        with self._lock:
            self._drop(notice)

    def step(self, timeout_s: float | None = None) -> None:
        """Wait for notices, or until a look is due, and serve them."""
        left_s = self._next_due(timeout_s)
        ready = {fd for fd, _ in self._poller.poll(left_s)}
        now = self._clock()
        looks: list[tuple[_Watched, bool]] = []
        with self._lock:
            if self._wake in ready:
                os.eventfd_read(self._wake)
            for fd, watched in self._watched.items():
                noticed = fd in ready
                if noticed:
                    watched.notice.clear()
                if noticed or (watched.due is not None and watched.due <= now):
                    watched.due = None
                    looks.append((watched, noticed))
        for watched, noticed in looks:
            self._look(watched, noticed)

    def _look(self, watched: _Watched, noticed: bool) -> None:
        try:
            again_s = watched.look(noticed)
        except FileNotFoundError:
            # The group is gone. Its descriptor stays ready for ever, so it must go as well.
            self.remove(watched.notice)
            return
        except OSError as error:
            log.warning("memory could not be looked at, ignoring", extra={"error": str(error)})
            self.remove(watched.notice)
            return
        if again_s is not None:
            watched.due = self._clock() + again_s

    def _next_due(self, timeout_s: float | None) -> float | None:
        with self._lock:
            due = [watched.due for watched in self._watched.values() if watched.due is not None]
        if not due:
            return timeout_s
        left_s = max(0.0, min(due) - self._clock())
        return left_s if timeout_s is None else min(left_s, timeout_s)

    def _drop(self, notice: Notice) -> None:
        watched = self._watched.get(notice.fd)
        if watched is None or watched.notice is not notice or notice.closed:
            return
        del self._watched[notice.fd]
        self._poller.unregister(notice.fd)
        notice.close()

    def _serve(self) -> None:
        while True:
            try:
                self.step()
            except Exception:
                log.exception("a look at memory failed, ignoring")
