"""The kernel's wait before a move begins early, or not at all; nothing else comes of it."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from uvmd.linux import cgroup_moves
from uvmd.linux.cgroup_moves import FRESH_S, Moves
from uvmd.linux.cgroups import Cgroups

VERSION_1 = "11:hugetlb:/\n4:memory:/vm/uvmd\n3:cpu,cpuacct:/vm\n1:name=systemd:/init\n0::/vm\n"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its one element is the time; a second passes whenever somebody looks."""
    now = [100.0]

    def look() -> float:
        now[0] += 1
        return now[0]

    monkeypatch.setattr(cgroup_moves, "monotonic", look)
    return now


class Later:
    """Calls what was submitted when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def __call__(self, function: Callable[[], None]) -> None:
        self.waiting.append(function)

    def run(self) -> None:
        while self.waiting:
            self.waiting.pop()()


def machine(tmp_path: Path, own: str, cgroups: Cgroups, *groups: str) -> tuple[Moves, Later]:
    for group in groups:
        (tmp_path / group).mkdir(parents=True)
        (tmp_path / group / "cgroup.procs").touch()
    (tmp_path / "own").write_text(own)
    later = Later()
    return Moves(cgroups, later, str(tmp_path / "own")), later


@pytest.mark.parametrize(
    ("hierarchies", "unified", "group"),
    [
        ({}, "v2", "v2/vm"),
        ({"memory": "m"}, None, "m/vm/uvmd"),
        ({"cpuacct": "c"}, "v2", "c/vm"),
        ({"systemd": "s"}, None, "s/init"),
    ],
)
def test_the_process_is_moved_to_where_it_is(
    tmp_path: Path, hierarchies: dict[str, str], unified: str | None, group: str
) -> None:
    places = {name: str(tmp_path / top) for name, top in hierarchies.items()}
    cgroups = Cgroups(places, None if unified is None else str(tmp_path / unified))
    moves, later = machine(tmp_path, VERSION_1, cgroups, group)
    moves.expect()
    later.run()
    assert (tmp_path / group / "cgroup.procs").read_text() == str(os.getpid())


def test_one_wait_is_for_all_who_come_meanwhile(tmp_path: Path) -> None:
    moves, later = machine(tmp_path, "0::/\n", Cgroups({}, str(tmp_path / "v2")), "v2")
    for _ in range(3):
        moves.expect()
    assert len(later.waiting) == 1
    later.run()
    moves.expect()
    assert len(later.waiting) == 1


def test_right_behind_another_there_is_no_wait_to_begin(tmp_path: Path, clock: list[float]) -> None:
    moves, later = machine(tmp_path, "0::/\n", Cgroups({}, str(tmp_path / "v2")), "v2")
    moves.expect()
    later.run()
    clock[0] -= 1 - FRESH_S / 2  # so little has passed when it is looked at next
    moves.expect()
    assert later.waiting == []
    moves.expect()
    assert len(later.waiting) == 1


@pytest.mark.parametrize("own", ["0::/gone\n", "7:pids:/\n"])
def test_where_it_cannot_be_done_it_is_tried_once_and_nobody_is_bothered(tmp_path: Path, own: str) -> None:
    moves, later = machine(tmp_path, own, Cgroups({}, str(tmp_path / "v2")))
    moves.expect()
    later.run()
    moves.expect()
    assert later.waiting == []


def test_the_last_descriptors_are_left_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moves, later = machine(tmp_path, "0::/\n", Cgroups({}, str(tmp_path / "v2")), "v2")
    for limit, written in ((8, ""), (1 << 20, str(os.getpid()))):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, limit=limit: (limit, limit))
        moves.expect()
        later.run()
        assert (tmp_path / "v2" / "cgroup.procs").read_text() == written


def test_without_a_thread_the_next_one_tries_again(tmp_path: Path) -> None:
    def no_thread(function: Callable[[], None]) -> None:
        tried.append(function)
        raise RuntimeError("can't start new thread")

    tried: list[Callable[[], None]] = []
    moves = Moves(Cgroups({}, str(tmp_path)), no_thread)
    moves.expect()
    moves.expect()
    assert len(tried) == 2
