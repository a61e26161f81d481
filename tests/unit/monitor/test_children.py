"""Who died, and who that was: in whatever order the kernel tells it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.monitor_parts import Parts, raise_it
from uvmd.monitor import children as children_room
from uvmd.monitor.children import Children, Run
from uvmd.monitor.slots import Slot

RUNTIME, INIT, OTHER, STRAY = 100, 101, 102, 103


class FakeKernel(SimpleNamespace):
    """Stands in for ``os`` in the room: statuses come in the batches that a test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[tuple[int, int]]] = []
        self.alive: set[int] = {INIT}
        self.killed: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def waitpid(self, _pid: int, _flags: int) -> tuple[int, int]:
        if not self.batches or not self.batches[0]:
            raise ChildProcessError
        pid, status = self.batches[0].pop(0)
        self.alive.discard(pid)
        return pid, status << 8

    def waitid(self, _kind: int, pid: int, _flags: int) -> None:
        if pid not in self.alive:
            raise ChildProcessError

    def killpg(self, pid: int, _signal: int) -> None:
        self.killed.append(pid)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKernel]:
    fake = FakeKernel()
    monkeypatch.setattr(children_room, "os", fake)
    return fake  # type: ignore[return-value]


class Family:
    def __init__(self, parts: Parts, pid_file: Path | None) -> None:
        self.parts = parts
        self.log: list[tuple[object, ...]] = []
        self.children = Children(
            raise_it,
            lambda slot, status: self.log.append(("exited", slot.number, slot.pid, status)),
            lambda status: self.log.append(("daemon", status)),
        )
        self.slot = Slot(parts.tools, 1, b"", lambda slot: None)
        self.run = Run(
            parts.loop, RUNTIME, -1, 0, self.slot, os.fsencode(pid_file) if pid_file else b"", 60, self._done
        )
        self.children.add_run(self.run)

    def _done(self, run: Run, status: int, failure: OSError | None, pid: int) -> None:
        run.finish()
        self.log.append(("run", status, failure is not None, pid))

    def reap(self, kernel: FakeKernel, *batch: tuple[int, int]) -> None:
        kernel.batches = [list(batch)]
        self.children.reap()


@settings(max_examples=60)
@given(
    order=st.permutations([(RUNTIME, 0), (INIT, 7), (STRAY, 9)]),
    cuts=st.lists(st.integers(0, 3), max_size=3),
)
def test_init_is_never_lost_in_whatever_order_and_batches_deaths_come(
    tmp_path_factory: pytest.TempPathFactory, order: list[tuple[int, int]], cuts: list[int]
) -> None:
    pid_file = tmp_path_factory.mktemp("run") / "pid"
    pid_file.write_text(str(INIT))
    kernel = FakeKernel()
    parts = Parts()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(children_room, "os", kernel)
        family = Family(parts, pid_file)
        rest = order
        for cut in sorted(cuts):
            batch, rest = rest[:cut], rest[cut:]
            family.reap(kernel, *batch)
        family.reap(kernel, *rest)
    assert family.log == [("run", 0, False, INIT), ("exited", 1, INIT, 7)]
    parts.close()


def test_a_living_init_is_adopted_and_its_end_told_later(
    parts: Parts, kernel: FakeKernel, tmp_path: Path
) -> None:
    (tmp_path / "pid").write_text(f"{INIT}\n")
    family = Family(parts, tmp_path / "pid")
    family.reap(kernel, (RUNTIME, 0))
    assert family.log == [("run", 0, False, INIT)]
    family.reap(kernel, (INIT, 0))
    assert family.log[1:] == [("exited", 1, INIT, 0)]


@pytest.mark.parametrize("text", [None, "", "x", "1", "-7", "99999999999999999999", str(OTHER), str(RUNTIME)])
def test_a_pid_that_is_not_a_child_of_ours_is_not_adopted(
    parts: Parts, kernel: FakeKernel, tmp_path: Path, text: str | None
) -> None:
    if text is not None:
        (tmp_path / "pid").write_text(text)
    family = Family(parts, tmp_path / "pid")
    family.reap(kernel, (RUNTIME, 0))
    assert family.log == [("run", 0, True, 0)]
    assert family.slot.pid == 0


def test_a_failed_runtime_adopts_nothing(parts: Parts, kernel: FakeKernel, tmp_path: Path) -> None:
    (tmp_path / "pid").write_text(str(INIT))
    family = Family(parts, tmp_path / "pid")
    family.reap(kernel, (RUNTIME, 1))
    assert family.log == [("run", 1, False, 0)]


def test_one_process_is_not_adopted_twice(parts: Parts, kernel: FakeKernel, tmp_path: Path) -> None:
    (tmp_path / "pid").write_text(str(INIT))
    family = Family(parts, tmp_path / "pid")
    other = Slot(parts.tools, 2, b"", lambda slot: None)
    family.children.add_process(other, INIT)
    family.reap(kernel, (RUNTIME, 0))
    assert family.log == [("run", 0, True, 0)]


def test_a_released_slot_hears_nothing_of_its_process(parts: Parts, kernel: FakeKernel) -> None:
    family = Family(parts, None)
    family.children.add_process(family.slot, OTHER)
    family.children.forget(family.slot)
    family.reap(kernel, (OTHER, 0))
    assert family.log == []


def test_the_daemon_is_told_of_last(parts: Parts, kernel: FakeKernel) -> None:
    family = Family(parts, None)
    family.children.daemon_pid = 50
    family.children.add_process(family.slot, OTHER)
    family.reap(kernel, (50, 3), (RUNTIME, 0), (OTHER, 4))
    assert family.log == [("exited", 1, OTHER, 4), ("run", 0, False, 0), ("daemon", 3)]
    assert family.children.daemon_pid == 0


def test_statuses_of_strangers_are_kept_only_while_somebody_may_name_them(
    parts: Parts, kernel: FakeKernel, tmp_path: Path
) -> None:
    family = Family(parts, tmp_path / "pid")
    family.reap(kernel, (STRAY, 1), (INIT, 2))
    assert set(family.children._strays) == {STRAY, INIT}
    family.reap(kernel, (RUNTIME, 1))
    assert family.children._strays == {}


def test_statuses_of_strangers_do_not_pile_up_while_programs_overlap(
    parts: Parts, kernel: FakeKernel, tmp_path: Path
) -> None:
    family = Family(parts, tmp_path / "pid")
    for number in range(50):
        later = Run(parts.loop, 1000 + number, -1, 0, None, b"pid", 60, lambda *_: None)
        family.children.add_run(later)
        family.reap(kernel, (2000 + number, 1), (999 + number if number else RUNTIME, 1))
    assert set(family.children._strays) == {2049}
    later.deadline.cancel()


def test_strangers_that_die_while_a_program_hangs_are_kept_within_limits(
    parts: Parts, kernel: FakeKernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children_room, "MAX_STRAYS", 3)
    (tmp_path / "pid").write_text(str(INIT))
    family = Family(parts, tmp_path / "pid")
    family.reap(kernel, *((2000 + number, 1) for number in range(10)))
    family.reap(kernel, (INIT, 7))
    # A number that comes again is one of the youngest.
    family.reap(kernel, (2008, 2))
    assert list(family.children._strays) == [2009, INIT, 2008]
    family.reap(kernel, (RUNTIME, 0))
    assert family.log == [("run", 0, False, INIT), ("exited", 1, INIT, 7)]


def test_a_living_init_is_not_taken_for_a_stranger_that_had_its_number(
    parts: Parts, kernel: FakeKernel, tmp_path: Path
) -> None:
    (tmp_path / "pid").write_text(str(INIT))
    family = Family(parts, tmp_path / "pid")
    family.reap(kernel, (INIT, 9))
    kernel.alive.add(INIT)
    family.reap(kernel, (RUNTIME, 0))
    assert family.log == [("run", 0, False, INIT)]
    family.reap(kernel, (INIT, 3))
    assert family.log[1:] == [("exited", 1, INIT, 3)]


def test_at_the_deadline_the_group_is_killed(parts: Parts, kernel: FakeKernel) -> None:
    killed: list[object] = []
    run = Run(parts.loop, RUNTIME, -1, 0, None, b"", 0.005, lambda *_: None)
    kernel.killpg = lambda pid, _signal: killed.append(pid)
    parts.run_until(lambda: killed)
    assert run.timed_out
    assert killed == [RUNTIME]


def test_one_slots_trouble_does_not_lose_the_statuses_behind_it(parts: Parts, kernel: FakeKernel) -> None:
    failures: list[BaseException] = []
    told: list[int] = []

    def exited(slot: Slot, status: int) -> None:
        told.append(slot.number)
        if slot.number == 1:
            raise RuntimeError("a bug")

    children = Children(failures.append, exited, lambda status: None)
    for number in (1, 2):
        children.add_process(Slot(parts.tools, number, b"", lambda slot: None), 200 + number)
    kernel.batches = [[(201, 0), (202, 0)]]
    children.reap()
    assert told == [1, 2]
    assert len(failures) == 1
