"""What a daemon that was killed in the middle of a change left behind, for the next one.

Core's records say what was done. They cannot say how far an Add came whose daemon died:
which dm device it had made, at which path something is mounted that no table knows. A
handler notes that before its first step, and the handler of the next daemon takes it
away before it changes anything else::

    def add(self, settings, found, view, record):
        self.unfinished.look(view.mounts)              # the plan only reads

        def apply(undo, answers):
            self.unfinished.settle(self.take_away)     # the first line of each apply
            self.unfinished.begin(path, {"dm": name})
            undo.callback(self.unfinished.end, path)
            ...

and ``end`` once more when the path is removed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from uvmd.api.environment import State
from uvmd.api.resources import Mounts, Record

log = logging.getLogger(__name__)
_KEY = "begun"


class Unfinished:
    """Changes by the path that they are about, kept in a distribution's state.

    A change that was finished stays noted until its path is removed: the mount table
    tells the two apart.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._mutex = threading.Lock()
        self._begun: dict[str, Record] | None = None
        self._left: dict[str, Record] = {}

    def look(self, mounts: Mounts) -> None:
        """Learn, once in a daemon's life, what an earlier one began and did not finish."""
        with self._mutex:
            if self._begun is None:
                self._begun = dict(self._state.load().get(_KEY, {}))
                self._left = {path: facts for path, facts in self._begun.items() if mounts.at(path) is None}

    def settle(self, take_away: Callable[[str, Record], object]) -> None:
        """Have ``take_away(path, facts)`` remove what was left; others wait meanwhile.

        What cannot be removed is logged and stays noted for the next daemon.
        """
        if not self._left:
            return
        with self._mutex:
            for path, facts in self._left.items():
                try:
                    take_away(path, facts)
                except Exception as error:
                    log.error(
                        "what an earlier daemon left cannot be removed, ignoring",
                        extra={"path": path, "error": str(error)},
                    )
                    continue
                self._forget(path)
            self._left = {}

    def begin(self, path: str, facts: Record) -> None:
        """Note, before the first step, what the change is going to make. Raises OSError."""
        with self._mutex:
            assert self._begun is not None, "look() comes first"
            self._begun[path] = facts
            try:
                self._state.save({_KEY: self._begun})
            except BaseException:
                del self._begun[path]
                raise

    def noted(self) -> dict[str, Record]:
        """What is noted of every path that is not removed yet."""
        with self._mutex:
            return dict(self._begun or {})

    def end(self, path: str) -> None:
        """Note that nothing of it is left: it was undone, or removed."""
        with self._mutex:
            self._forget(path)

    def _forget(self, path: str) -> None:
        if self._begun is None or self._begun.pop(path, None) is None:
            return
        try:
            self._state.save({_KEY: self._begun})
        except OSError as error:
            # At worst the next daemon looks for something that is not there.
            log.warning("the end of a change could not be noted, ignoring", extra={"errno": error.errno})
