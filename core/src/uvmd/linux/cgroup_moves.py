"""The kernel made ready to move a process to another cgroup, before somebody does.

Such a move takes a lock of the whole system for writing. When nobody has done so for some
milliseconds the kernel first waits for all processors (an RCU grace period): 8 to 15 ms, more
than a runtime takes for all else of a container. It is the same wait for whoever comes
meanwhile. So one that begins with the request is half over when the runtime gets there.

A process that is "moved" to the cgroup in which it is takes the lock, and nothing else happens.
"""

from __future__ import annotations

import logging
import math
import os
import resource
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from uvmd.linux.cgroups import Cgroups
from uvmd.linux.files import write_all

log = logging.getLogger(__name__)

OWN = "/proc/self/cgroup"
#: Descriptors are given out from below. The last ones are for who cannot do without, an undo say:
#: the wait would hold one for milliseconds.
_SPARE = 64
#: So long the kernel remembers at least that somebody wanted to move a process.
FRESH_S = 0.015


class Submit(Protocol):
    """Have a function called on another thread, soon."""

    def __call__(self, function: Callable[[], None], /) -> object: ...


class Moves:
    """See the module. ``own`` is where the kernel tells the cgroups of this process."""

    def __init__(self, cgroups: Cgroups, submit: Submit, own: str = OWN) -> None:
        self._cgroups = cgroups
        self._submit = submit
        self._own = own
        self._under_way = False
        self._useless = self._told = False
        self._expected = -math.inf

    def expect(self) -> None:
        """Say that a process is about to be moved. From any thread; never waits and never raises."""
        # Each of those before has moved a process, or is about to.
        last, self._expected = self._expected, monotonic()
        if self._under_way or self._useless or self._expected - last < FRESH_S:
            return
        self._under_way = True
        try:
            self._submit(self._move)
        except RuntimeError:  # no thread to be had: it works without, and takes its time
            self._under_way = False

    def _move(self) -> None:
        pid = str(os.getpid()).encode()
        try:
            directory = self._directory()
            fd = os.open(f"{directory}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
            if fd + _SPARE > resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
                os.close(fd)
                return
            write_all(fd, pid)
            self._tell("the kernel is made ready for moves between cgroups", {"cgroup": directory})
        except OSError as error:
            # Anything else, as no descriptor to be had, passes.
            self._useless = isinstance(error, FileNotFoundError | PermissionError)
            self._tell("the kernel cannot be made ready for moves, ignoring", {"error": str(error)})
        finally:
            self._under_way = False

    def _tell(self, message: str, facts: dict[str, str]) -> None:
        if not self._told:
            self._told = True
            log.debug(message, extra=facts)

    def _directory(self) -> str:
        """Return that of a cgroup in which this process is. Raises OSError."""
        tops = {**self._cgroups.hierarchies, "": self._cgroups.unified}
        with open(self._own, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                _, names, path = line.rstrip("\n").split(":", 2)
                for name in names.removeprefix("name=").split(","):
                    if (top := tops.get(name)) is not None:
                        return top + path
        raise FileNotFoundError(f"{self._own}: no cgroup that is mounted")
