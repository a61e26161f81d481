"""Every step of every kind of disk fails once; a daemon dies in the middle of each step."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from uvmd.api.testing import MemoryState
from uvmd.api.testing.faults import Faults
from uvmd.api.testing.kernel import FakeKernel
from uvmd.api.transaction import Undo
from uvmd.host.records import Records
from uvmd.linux import devmapper
from uvmd_storage_scsi import crypt

Cases = Mapping[str, Mapping[str, Any]]
ALL = ["layer", "partition", "scratch", "xfs", "encrypted", "link", "read-only link"]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for between two tries does not come later either."""
    monkeypatch.setattr(devmapper, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(crypt, "_AGAIN_S", 1e6)


@pytest.mark.parametrize("strict", [False, True], ids=["loose", "strict"])
@pytest.mark.parametrize("case", ALL)
def test_an_add_that_fails_at_any_step_leaves_the_guest_as_it_was(
    bench: Any, kernel: FakeKernel, faults: Faults, cases: Cases, case: str, strict: bool
) -> None:
    if strict:
        bench.be_strict()
    settings = cases[case]

    def blank() -> None:
        # What a tool wrote on the disk stays there, and is no step of ours.
        kernel.add_device("sda")

    with faults.installed():
        steps = faults.each_step(
            blank, lambda: bench.add_disk(**settings), lambda: bench.remove_disk(**settings)
        )
    assert (bench.gate.inconsistent, bench.gate.degraded) == (None, None)
    assert bench.mounted() == []
    told = " ".join(steps)
    assert ("ioctl" in told) == (
        case == "encrypted" or (strict and case in ("layer", "partition", "read-only link"))
    )
    assert ("mount " in told) == (not case.endswith("link"))
    assert ("run mkfs" in told) == (case in ("scratch", "xfs", "encrypted"))
    assert ("run cryptsetup luksOpen" in told) == (case == "encrypted")


@pytest.mark.parametrize("case", ALL)
def test_a_remove_that_fails_at_any_step_can_be_repeated(
    another: Callable[..., Any], kernel: FakeKernel, faults: Faults, cases: Cases, case: str
) -> None:
    bench, settings = another(verity="always"), cases[case]
    before = kernel.state()
    bench.add_disk(**settings)
    with faults.installed():
        bench.remove_disk(**settings)
        steps = list(faults.steps)
        assert kernel.state() == before
        for number, name in enumerate(steps):
            bench.add_disk(**settings)
            mounted, bench.gate.degraded = kernel.state(), None
            with faults.failing_step(number):
                try:
                    bench.remove_disk(**settings)
                    failed = False
                except Exception:
                    failed = True
            if failed:
                assert bench.mounted() == [settings["MountPath"]], f"{name}: what failed is still known"
                assert bench.gate.degraded or kernel.state() == mounted, f"{name}: not marked, so as before"
                bench.remove_disk(**settings)
            assert kernel.state() == before, f"after step {number} ({name}) failed"
            assert bench.mounted() == []
    assert len(steps) >= 3


@pytest.mark.parametrize("strict", [False, True], ids=["loose", "strict"])
@pytest.mark.parametrize("case", ALL)
def test_an_undo_that_fails_marks_the_vm_and_says_which(
    another: Callable[..., Any], kernel: FakeKernel, faults: Faults, cases: Cases, case: str, strict: bool
) -> None:
    settings = cases[case]
    with faults.installed():
        undos = 0
        while True:
            bench = another()
            if strict:
                bench.be_strict()
            kernel.add_device("sda")
            bench.add_disk(**settings)
            steps, names = list(faults.steps), list(faults.undos)
            bench.remove_disk(**settings)
            if undos == len(names):
                break
            faults.steps = steps
            kernel.add_device("sda")
            with faults.failing_undo(undos), pytest.raises(Exception, match="made to fail"):
                bench.add_disk(**settings)
            marked = bench.gate.inconsistent if strict else bench.gate.degraded
            assert names[undos] in (marked or ""), f"{marked} does not name {names[undos]}"
            undos += 1
            take_away_by_hand(kernel)
    assert undos >= 3


def take_away_by_hand(kernel: FakeKernel) -> None:
    """What an undo that was made to fail has left."""
    kernel.mounts.clear()
    for name in list(kernel.dm.devices):
        del kernel.dm.devices[name]
        (kernel.mapper / name).unlink(missing_ok=True)
        kernel.numbers.pop(str(kernel.mapper / name), None)
    shutil.rmtree(kernel.root / "run", ignore_errors=True)


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


@pytest.mark.parametrize("case", ALL)
def test_the_next_daemon_takes_away_what_a_killed_one_left_at_any_step(
    another: Callable[..., Any],
    kernel: FakeKernel,
    faults: Faults,
    cases: Cases,
    case: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = cases[case]
    before = kernel.state()
    with faults.installed():
        first = another(verity="always")
        first.add_disk(**settings)
        steps = len(faults.steps)
        first.remove_disk(**settings)
        for number in range(steps):
            state = MemoryState()
            kernel.add_device("sda")
            dying = another(state, verity="always")
            with monkeypatch.context() as patch, pytest.raises(Killed):
                die_at(number, patch)
                dying.add_disk(**settings)
            # The next one has the state file, and no record of what was not finished.
            after = another(state, verity="always")
            after.add_disk(**settings)
            after.remove_disk(**settings)
            assert kernel.state() == before, f"killed at step {number}"
            assert state.load() == {"begun": {}}


@pytest.mark.parametrize("case", ALL)
def test_a_remove_whose_daemon_was_killed_at_any_step_is_finished_by_the_next(
    another: Callable[..., Any],
    kernel: FakeKernel,
    faults: Faults,
    cases: Cases,
    case: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    settings = cases[case]
    before = kernel.state()
    with faults.installed():
        first = another(verity="always")
        first.add_disk(**settings)
        first.remove_disk(**settings)
        for number in range(len(faults.steps)):
            state, records = MemoryState(), str(tmp_path_factory.mktemp("run") / "devices.json")
            dying = another(state, records, verity="always")
            dying.add_disk(**settings)
            with monkeypatch.context() as patch, pytest.raises(Killed):
                die_at(number, patch)
                dying.remove_disk(**settings)
            after = another(state, records, verity="always")
            after.modifier.resume()
            assert "the daemon ended in the middle of Remove MappedVirtualDisk" in (after.gate.degraded or "")
            after.remove_disk(**settings)
            assert kernel.state() == before, f"killed at step {number}"
            assert (after.mounted(), state.load()) == ([], {"begun": {}})
