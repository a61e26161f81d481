"""Faults on the real kernel: each system call of a request fails once, and each of its undo steps.

``uvmd.api.testing.faults`` does this to one handler's apply, mostly on a fake kernel; here
it is the whole request, with its records, its journal and every thread that it uses. The
steps are not listed by hand. A change is run again and again; the first time its first
call at the seam fails, then its second, and so on, until one run has no further call. So a
step that somebody adds is covered by the tests that are there. What must hold after each
failure is the test's business::

    for fault in faults.each_call(add, remove):
        assert everything() == before, fault
"""

from __future__ import annotations

import builtins
import errno
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from uvmd.api.testing import faults
from uvmd.api.transaction import Undo
from uvmd.errors import UvmdError
from uvmd.host.records import Records
from uvmd.linux import syscalls

#: Where changes reach the kernel.
SEAM: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (syscalls, faults.SYSCALLS),
    (os, faults.OS),
    (builtins, ("open",)),
    (socket.socket, ("setsockopt",)),
)


class Faults:
    """Makes calls at the seam fail, one a run.

    Args:
        code: the errno that they fail with.
        also: more of the seam, as objects with the names of their functions: what stands in
            for the monitor that dials and that runs commands.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        code: int = errno.EIO,
        also: tuple[tuple[Any, tuple[str, ...]], ...] = (),
    ) -> None:
        self._monkeypatch = monkeypatch
        self._code = code
        self._seam = SEAM + also
        self._countdown: int | None = None
        self._fault = ""

    def each_call(self, change: Callable[[], object], revert: Callable[[], object]) -> Iterator[str]:
        """Run ``change`` once for each call that it makes, with that call failing.

        Yields what failed, when everything must be as before: the change has failed of it,
        or it went on without, as it may, and was reverted. Ends after a run in which
        nothing was left to fail; that run's change stays.
        """
        for nth in range(10_000):
            succeeded = self._run(change, nth)
            if not self._fault:
                return
            if succeeded:
                revert()
            yield self._fault
        raise AssertionError("the change never ends")

    def each_death(self, change: Callable[[], object]) -> Iterator[str]:
        """Run ``change`` in a daemon that dies at each of its calls: nothing is undone or recorded.

        The test goes on with a new daemon, which must cope with what is there.
        """
        for nth in range(10_000):
            with self._monkeypatch.context() as patch:
                patch.setattr(Undo, "close", lambda undo: None)
                patch.setattr(Records, "abort", lambda *arguments: None)
                patch.setattr(self, "_error", lambda told: Killed())
                try:
                    self._run(change, nth)
                except Killed:
                    pass
            if not self._fault:
                return
            yield self._fault
        raise AssertionError("the change never ends")

    def each_undo(self, change: Callable[[], object]) -> Iterator[str]:
        """Run ``change``, which must fail at its end, once for each of its undo steps.

        That step is done and then says that it failed, so that it is in nobody's way.
        """
        for nth in range(1_000):
            steps: list[str] = []
            with self._monkeypatch.context() as patch:
                patch.setattr(Undo, "close", _closing(Undo.close, nth, steps))
                with pytest.raises(UvmdError):
                    change()
            if nth >= len(steps):
                return
            yield steps[nth]
        raise AssertionError("the undo never ends")

    def _run(self, change: Callable[[], object], nth: int) -> bool:
        """Run with the nth call failing; tell whether the change succeeded all the same."""
        self._fault, self._countdown = "", nth
        with self._monkeypatch.context() as patch:
            for owner, names in self._seam:
                for name in names:
                    patch.setattr(owner, name, self._guarded(owner, name))
            try:
                change()
            except (UvmdError, OSError):
                if not self._fault:
                    raise
                return False
            finally:
                self._countdown = None
        return True

    def _guarded(self, owner: Any, name: str) -> Callable[..., Any]:
        real, label = getattr(owner, name), getattr(owner, "__name__", type(owner).__name__)

        def call(*arguments: Any, **named: Any) -> Any:
            if self._countdown is not None:
                self._countdown -= 1
                if self._countdown < 0:
                    self._countdown = None
                    told = ", ".join(f"{argument!r:.80}" for argument in arguments)
                    self._fault = f"{label}.{name}({told})"
                    raise self._error(str(arguments[0]))
            return real(*arguments, **named)

        return call

    def _error(self, told: str) -> BaseException:
        return OSError(self._code, os.strerror(self._code), told)


class Killed(BaseException):
    """No daemon is left that could do anything about it."""


def _closing(close: Callable[[Undo], None], nth: int, steps: list[str]) -> Callable[[Undo], None]:
    def closing(undo: Undo) -> None:
        steps.extend(step for step, _, _ in undo._steps)
        if nth < len(undo._steps):
            step, function, arguments = undo._steps[nth]

            def done_and_failed() -> None:
                function(*arguments)
                raise OSError(errno.EIO, "Input/output error")

            undo._steps[nth] = (step, done_and_failed, ())
        close(undo)

    return closing
