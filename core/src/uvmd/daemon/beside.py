"""Services of plugins (the hook ``services``): each on a thread of its own, beside the bridge.

A service can fail, hang or be wrong: no request notices. One that raises is made anew after
a pause; a daemon that ends waits for none of them longer than a second.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from uvmd.api.services import VmService, VmView

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
STOP_S = 1.0


class View(NamedTuple):
    """What the services see; implements ``api.VmView``."""

    ask: Callable[[Sequence[str]], Mapping[str, Any]]
    may_log: Callable[[], bool]
    dropped: Callable[[], Mapping[str, int]]

    def properties(self, kinds: Sequence[str]) -> Mapping[str, Any]:
        return self.ask(kinds)

    def logging_allowed(self) -> bool:
        return self.may_log()

    def events_dropped(self) -> Mapping[str, int]:
        return self.dropped()


class Beside:
    """All services. ``makers`` gives a new instance of each by name."""

    def __init__(
        self,
        makers: Mapping[str, Callable[[], VmService]],
        view: VmView,
        *,
        first_pause_s: float = FIRST_PAUSE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._makers = makers
        self._view = view
        self._first_pause_s = first_pause_s
        self._clock = clock
        self._ending = threading.Event()
        self._mutex = threading.Lock()
        self._running: dict[str, VmService] = {}
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start them all. Importing and making them happens on their threads."""
        for name in self._makers:
            thread = threading.Thread(target=self._serve, args=(name,), name=f"service-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Ask all to end, and wait for a moment."""
        self._ending.set()
        with self._mutex:
            running = dict(self._running)
        for name, service in running.items():
            self._stop_one(name, service)
        latest = self._clock() + STOP_S
        for thread in self._threads:
            thread.join(max(0.0, latest - self._clock()))

    @staticmethod
    def _stop_one(name: str, service: VmService) -> None:
        try:
            service.stop()
        except Exception as error:
            log.warning("a service did not stop", extra={"service": name, "error": type(error).__name__})

    def _serve(self, name: str) -> None:
        pause_s = self._first_pause_s
        while not self._ending.is_set():
            started = self._clock()
            try:
                self._once(name)
                return
            except Exception as error:
                # Its text may hold anything that the plugin knows; the type is ours to show.
                extra = {"service": name, "error": type(error).__name__, "pause_s": pause_s}
                log.warning("a service failed, starting it again", extra=extra)
            self._ending.wait(pause_s)
            lasted = self._clock() - started > LONGEST_PAUSE_S
            pause_s = self._first_pause_s if lasted else min(2 * pause_s, LONGEST_PAUSE_S)

    def _once(self, name: str) -> None:
        service = self._makers[name]()
        with self._mutex:
            if self._ending.is_set():
                return
            self._running[name] = service
        try:
            service.start(self._view)
        finally:
            with self._mutex:
                del self._running[name]
