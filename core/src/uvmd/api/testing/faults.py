"""Every step of a handler's apply, made to fail once: is the guest as before?

A step is a call that can fail (the functions of ``uvmd.linux.syscalls``, those of ``os``
that change or read files, a command that is run, a port that is dialled), an opposite that
was registered, or the end. The first run counts them; then each run fails at the next one. So
nothing has to be listed, and a step that somebody adds tomorrow is in the tests already.

Needs no pytest: the same harness runs in a guest, on real devices.
"""

from __future__ import annotations

import builtins
import errno
import inspect
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from uvmd.api.resources import Handler, Keep, Plan, Verb
from uvmd.api.transaction import Undo
from uvmd.linux import syscalls

#: Functions of ``os`` that apply may call and that a file system may refuse. A close that
#: fails has closed all the same, so it is none.
OS = (
    "chdir",
    "chmod",
    "dup",
    "fchmod",
    "fsync",
    "ftruncate",
    "listdir",
    "lseek",
    "lstat",
    "makedirs",
    "memfd_create",
    "mkdir",
    "mknod",
    "open",
    "posix_fadvise",
    "pread",
    "pwrite",
    "read",
    "readlink",
    "rename",
    "rmdir",
    "scandir",
    "stat",
    "statvfs",
    "symlink",
    "unlink",
    "write",
)


#: All of the system-call seam but the one that must not be called. Read here, before a fake stands there.
SYSCALLS = tuple(
    name
    for name, function in inspect.getmembers(syscalls, inspect.isfunction)
    if function.__module__ == syscalls.__name__ and not name.startswith("_") and name != "power_off"
)


class Fault(OSError):
    """The failure that was asked for."""


class Faults:
    """Counts the steps of each apply, and has one of them fail.

    Args:
        state: what must be the same before and after; compared by ``==``.
    """

    def __init__(self, state: Callable[[], object]) -> None:
        self._state = state
        self._saved: list[tuple[Any, str, Any]] = []
        self._thread = 0
        self._fail_at = -1
        self._fail_undo = -1
        #: The steps of the last apply, in order.
        self.steps: list[str] = []
        #: The opposites that the last apply registered, in order.
        self.undos: list[str] = []

    @contextmanager
    def installed(self) -> Iterator[Faults]:
        """Stand between apply and the system while the body runs."""
        try:
            for owner, names in ((syscalls, SYSCALLS), (os, OS), (builtins, ("open",))):
                for name in names:
                    self._wrap(owner, name, getattr(owner, name))
            yield self
        finally:
            while self._saved:
                owner, name, function = self._saved.pop()
                setattr(owner, name, function)

    def _wrap(self, owner: Any, name: str, function: Callable[..., Any]) -> None:
        def stepping(*args: Any, **options: Any) -> Any:
            first = args[0] if args and isinstance(args[0], str) else ""
            return self._take(f"{name} {first}".rstrip(), function, *args, **options)

        self._saved.append((owner, name, function))
        setattr(owner, name, stepping)

    def run(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``env.run`` with each command as a step."""

        def running(argv: Any, **options: Any) -> Any:
            return self._take(f"run {' '.join(argv[:2])}", function, argv, **options)

        return running

    def dial(self, function: Callable[[int, float], int]) -> Callable[[int, float], int]:
        """Return ``env.dial`` with each connection as a step."""
        return lambda port, deadline: int(self._take(f"dial {port}", function, port, deadline))

    def _take(self, name: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Count a call and make it; what it calls itself is part of it."""
        if threading.get_ident() != self._thread:
            return function(*args, **options)
        self.step(name)
        self._thread, mine = 0, self._thread
        try:
            return function(*args, **options)
        finally:
            self._thread = mine

    def step(self, name: str) -> None:
        """Count a step; raise if it is the one that is to fail."""
        self.steps.append(name)
        if len(self.steps) - 1 == self._fail_at:
            raise Fault(errno.EIO, f"made to fail at step {self._fail_at}: {name}")

    def watch(self, handler: Handler) -> Handler:
        """Return the handler with every apply of its plans watched."""
        return _Watched(handler, self)

    @contextmanager
    def armed(self, *, begins: bool = True) -> Iterator[None]:
        """Count in this thread while the body runs: an apply, or what was prepared for it."""
        if begins:
            self.steps, self.undos = [], []
        self._thread = threading.get_ident()
        try:
            yield
        finally:
            self._thread = 0

    # What a test calls

    def each_step(
        self,
        prepare: Callable[[], object],
        act: Callable[[], object],
        put_back: Callable[[], object],
        only: Callable[[str], bool] | None = None,
    ) -> list[str]:
        """Have every step of ``act`` fail once, and compare.

        A failed act must leave the state that ``prepare`` made; one that goes on regardless
        must reach the state that it reaches otherwise. After each failure the same act must
        work. ``put_back`` undoes a success. Returns the steps that were made to fail: all,
        or those that ``only`` picks where a step takes seconds; there the next failure shows
        how far the act works after one, and it is done whole after the last.
        """
        prepare()
        act()
        wanted, steps = self._state(), list(self.steps)
        put_back()
        picked = [number for number, name in enumerate(steps) if only is None or only(name)]
        for number in picked:
            name = f"step {number} ({steps[number]})"
            prepare()
            before = self._state()
            failed = self._fails_at(number, act)
            after = self._state()
            expected = before if failed else wanted
            assert after == expected, f"{name} leaves {_difference(expected, after)}"
            if failed and (only is None or number == picked[-1]):
                act()
                again = self._state()
                assert again == wanted, f"after {name} failed: {_difference(wanted, again)}"
                failed = False
            if not failed:
                put_back()
        return [steps[number] for number in picked]

    def _fails_at(self, number: int, act: Callable[[], object]) -> bool:
        """Act with one step failing; tell whether the act failed of it."""
        try:
            with self.failing_step(number):
                act()
        except Exception:
            return True
        return False

    @contextmanager
    def failing_undo(self, number: int) -> Iterator[None]:
        """Have the last step fail, and then this opposite too."""
        self._fail_undo = number
        self._fail_at = len(self.steps) - 1
        try:
            yield
        finally:
            self._fail_undo = self._fail_at = -1

    def failing_step(self, number: int) -> Any:
        """Have one step fail while the body runs."""
        return self._failing(number)

    @contextmanager
    def _failing(self, number: int) -> Iterator[None]:
        self._fail_at = number
        try:
            yield
        finally:
            self._fail_at = -1

    def registered(self, step: str, function: Callable[..., object]) -> Callable[..., object]:
        """Note an opposite; return it, or one that fails."""
        number = len(self.undos)
        self.undos.append(step)
        if number != self._fail_undo:
            return function

        def failing(*_: object) -> object:
            raise Fault(errno.EIO, f"made to fail: {step}")

        return failing


class _WatchedUndo(Undo):
    """Registers at the real one, and counts."""

    __slots__ = ("_faults", "_real")

    def __init__(self, real: Undo, faults: Faults) -> None:
        self._real = real
        self._faults = faults

    def callback(self, function: Callable[..., object], *args: Any, step: str = "") -> None:
        name = step or getattr(function, "__qualname__", "step")
        self._real.callback(self._faults.registered(name, function), *args, step=name)
        # What was registered by now must be all that has to be undone.
        self._faults.step(f"after registering: {name}")

    def point_of_no_return(self, step: str) -> None:
        self._faults.step(f"before: {step}")
        self._real.point_of_no_return(step)

    @property
    def irreversible(self) -> str | None:
        return self._real.irreversible


class _Watched(Handler):
    def __init__(self, handler: Handler, faults: Faults) -> None:
        super().__init__(handler.env)
        self._handler = handler
        self._faults = faults
        self.settings = handler.settings  # type: ignore[misc]

    def __getattribute__(self, name: str) -> Any:
        if name in ("identity", "keys", "find"):
            return getattr(self._handler, name)
        if name in {verb.value.lower() for verb in Verb}:
            return lambda *args: self._watched(getattr(self._handler, name)(*args))
        return super().__getattribute__(name)

    def _watched(self, plan: Plan) -> Plan:
        if plan is Plan.nothing():
            return plan
        faults, ahead = self._faults, plan.prepare

        def prepare(keep: Keep) -> None:
            with faults.armed():
                assert ahead is not None
                ahead(keep)

        def apply(undo: Undo, answers: Any) -> Any:
            with faults.armed(begins=ahead is None):
                made = plan.apply(_WatchedUndo(undo, faults), answers)
                # A request that is done too late is undone whole.
                faults.step("after the last step")
                return made

        return plan._replace(apply=apply, prepare=ahead and prepare)


def _difference(wanted: object, found: object) -> str:
    if not isinstance(wanted, dict) or not isinstance(found, dict):
        return f"{found!r} in place of {wanted!r}"
    return "; ".join(
        f"{key}: {found[key]!r} in place of {wanted[key]!r}" for key in wanted if wanted[key] != found[key]
    )
