"""A handler's changes on the fake kernel, failing or ending at each of their steps in turn.

``vm(state, records)`` makes a VM on the kernel: new, or as a daemon that was started anew
with what an earlier one left in the two.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from uvmd.api.testing import MemoryState, Workbench
from uvmd.api.testing.faults import Faults
from uvmd.api.testing.kernel import FakeKernel
from uvmd.api.transaction import Undo
from uvmd.host.records import Records

Act = Callable[[Workbench], object]


class Killed(BaseException):
    """The daemon ends here: nothing of it runs any more, its undo stack neither."""


def die_at(number: int, patch: pytest.MonkeyPatch) -> None:
    """Have the daemon end at this step of the next apply."""

    def step(self: Faults, name: str) -> None:
        self.steps.append(name)
        if len(self.steps) - 1 == number:
            raise Killed

    patch.setattr(Faults, "step", step)
    patch.setattr(Undo, "close", lambda self: None)
    # Nor does it put anything back in its files.
    patch.setattr(Records, "abort", lambda self, *_: None)


class Storm:
    """Everything that can go wrong with one kind of device.

    Args:
        blank: makes the devices as they were before the first Add.
        add, remove: the requests.
    """

    def __init__(
        self,
        kernel: FakeKernel,
        faults: Faults,
        vm: Callable[..., Workbench],
        add: Act,
        remove: Act,
        blank: Callable[[], object] = lambda: None,
    ) -> None:
        self._kernel = kernel
        self._faults = faults
        self._vm = vm
        self._add = add
        self._remove = remove
        self._blank = blank

    def fail_each_step_of_an_add(self, *, strict: bool) -> list[str]:
        """The guest must be as before, the VM unmarked, and the same request work. Returns the steps."""
        vm = self._vm()
        if strict:
            vm.be_strict()
        steps = self._faults.each_step(self._blank, lambda: self._add(vm), lambda: self._remove(vm))
        assert (vm.gate.inconsistent, vm.gate.degraded) == (None, None)
        assert vm.mounted() == []
        return steps

    def fail_each_step_of_a_remove(self) -> list[str]:
        """What failed must still be known; unmarked, it must be as before. Repeating it must work."""
        vm, before = self._vm(), self._kernel.state()
        self._add(vm)
        path = vm.mounted()
        self._remove(vm)
        steps = list(self._faults.steps)
        assert self._kernel.state() == before
        for number, name in enumerate(steps):
            self._add(vm)
            mounted, vm.gate.degraded = self._kernel.state(), None
            with self._faults.failing_step(number):
                try:
                    self._remove(vm)
                    failed = False
                except Exception:
                    failed = True
            if failed:
                assert vm.mounted() == path, f"{name}: what failed is still known"
                assert vm.gate.degraded or self._kernel.state() == mounted, f"{name}: unmarked, so as before"
                self._remove(vm)
            assert self._kernel.state() == before, f"after step {number} ({name}) failed"
            assert vm.mounted() == []
        return steps

    def fail_each_undo(self, *, strict: bool) -> list[str]:
        """The last step fails and then one opposite: the VM must be marked and name it."""
        number = 0
        while True:
            vm = self._vm()
            if strict:
                vm.be_strict()
            self._blank()
            self._add(vm)
            steps, names = list(self._faults.steps), list(self._faults.undos)
            self._remove(vm)
            if number == len(names):
                return names
            self._blank()
            self._faults.steps = steps
            with self._faults.failing_undo(number), pytest.raises(Exception, match="made to fail"):
                self._add(vm)
            marked = (vm.gate.inconsistent if strict else vm.gate.degraded) or ""
            assert names[number] in marked, f"{marked} does not name {names[number]}"
            number += 1
            self._take_away_by_hand()

    def _take_away_by_hand(self) -> None:
        kernel = self._kernel
        kernel.mounts.clear()
        for name in list(kernel.dm.devices):
            del kernel.dm.devices[name]
            (kernel.mapper / name).unlink(missing_ok=True)
            kernel.numbers.pop(str(kernel.mapper / name), None)
        shutil.rmtree(kernel.root / "run", ignore_errors=True)

    def kill_in_each_step_of_an_add(self, patch: pytest.MonkeyPatch) -> int:
        """The next daemon must take away what was left. Returns the number of steps."""
        before, first = self._kernel.state(), self._vm()
        self._add(first)
        steps = len(self._faults.steps)
        self._remove(first)
        for number in range(steps):
            state = MemoryState()
            self._blank()
            dying = self._vm(state)
            with patch.context() as dead, pytest.raises(Killed):
                die_at(number, dead)
                self._add(dying)
            # The next one has the state file, and no record of what was not finished.
            after = self._vm(state)
            self._add(after)
            self._remove(after)
            assert self._kernel.state() == before, f"killed at step {number}"
            assert state.load() == {"begun": {}}
        return steps

    def kill_in_each_step_of_a_remove(self, patch: pytest.MonkeyPatch, folder: Path) -> int:
        """The next daemon must say so, and the Remove work when it is repeated."""
        before, first = self._kernel.state(), self._vm()
        self._add(first)
        self._remove(first)
        steps = len(self._faults.steps)
        for number in range(steps):
            state, records = MemoryState(), str(folder / f"devices-{number}.json")
            dying = self._vm(state, records)
            self._add(dying)
            with patch.context() as dead, pytest.raises(Killed):
                die_at(number, dead)
                self._remove(dying)
            after = self._vm(state, records)
            after.modifier.resume()
            assert "the daemon ended in the middle of Remove" in (after.gate.degraded or "")
            self._remove(after)
            assert self._kernel.state() == before, f"killed at step {number}"
            assert (after.mounted(), state.load()) == ([], {"begun": {}})
        return steps
