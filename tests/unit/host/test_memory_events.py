"""Which container lost a process to the kernel, and that it is said once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from uvmd.host import memory_events
from uvmd.host.containers import Container, State
from uvmd.host.memory_events import OutOfMemory
from uvmd.host.processes import Kind, Process
from uvmd.host.registry import Registry
from uvmd.linux.cgroups import Cgroups
from uvmd.linux.memory_events import Notice
from uvmd.linux.notices import Notices

Look = Callable[[bool], float | None]


class FakeNotices:
    """Keeps the looks for the test to call."""

    def __init__(self) -> None:
        self.looks: list[Look] = []
        self.removed = 0

    def add(self, notice: Notice, look: Look) -> None:
        self.looks.append(look)

    def remove(self, notice: Notice) -> None:
        notice.close()
        self.removed += 1


class Bench:
    """A registry and version 1 groups made of files."""

    def __init__(self, top: Path, version: int = 1) -> None:
        self.top = top
        self.cgroups = Cgroups({"memory": str(top)}) if version == 1 else Cgroups({}, str(top))
        self.file = "memory.oom_control" if version == 1 else "memory.events"
        self.notices = FakeNotices()
        self.told: list[OutOfMemory] = []
        self.registry = Registry()

    def follow(self) -> None:
        notices = cast(Notices, self.notices)
        memory_events.follow(self.registry, self.cgroups, notices, self.told.append)

    def kills(self, name: str, count: int) -> None:
        (self.top / name).mkdir(exist_ok=True)
        (self.top / name / "cgroup.event_control").touch()
        (self.top / name / self.file).write_text(f"oom_kill {count}\n")

    def container(self, name: str = "c", state: State = State.CREATED) -> Container:
        container = Container(id=name, activity_id="", cgroup=f"/{name}")
        container.init = Process(slot=1, kind=Kind.INIT, container_id=name)
        self.registry.add(container)
        self.kills(name, 0) if not (self.top / name).exists() else None
        self.registry.advance(container, state)
        return container


@pytest.fixture(params=[1, 2])
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    made = Bench(tmp_path, request.param)
    made.follow()
    return made


def test_a_kill_is_told_once_with_the_containers_memory(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.container()
    (look,) = bench.notices.looks
    bench.kills("c", 2)
    with caplog.at_level(logging.WARNING):
        assert look(True) is None
        look(True)
    (told,) = bench.told
    assert (told.container_id, told.pod_id, told.kills) == ("c", "c", 2)
    (record,) = caplog.records
    assert record.__dict__["container"] == "c"


def test_version_1_tells_before_the_kill_so_it_is_looked_again_for_a_while(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.follow()
    bench.container()
    (look,) = bench.notices.looks
    assert look(True) == memory_events.AGAIN_S
    bench.kills("c", 1)
    assert look(False) is None
    assert len(bench.told) == 1
    assert look(True) == memory_events.AGAIN_S
    again = [look(False) for _ in range(30)]
    assert again[-1] is None, "a notice about another group of the pod ends in nothing"


def test_kills_of_before_are_not_told_again(bench: Bench) -> None:
    bench.kills("c", 5)
    bench.container()
    bench.notices.looks[0](True)
    assert bench.told == []


def test_a_container_that_ends_by_sigkill_is_looked_at_and_one_that_ends_otherwise_is_not(
    bench: Bench,
) -> None:
    for name, status in (("killed", -9), ("passed-on", 137), ("ended", 0)):
        container = bench.container(name)
        assert container.init is not None
        container.init.status = status
        bench.kills(name, 1)
        bench.registry.advance(container, State.TERMINATED)
    assert [told.container_id for told in bench.told] == ["killed", "passed-on"]


def test_a_deleted_container_is_not_listened_to(bench: Bench) -> None:
    container = bench.container()
    bench.registry.remove(container)
    assert bench.notices.removed == 1


def test_containers_that_were_there_before_are_watched_unless_they_have_ended(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.container("created")
    bench.container("running", State.RUNNING)
    bench.container("ended", State.TERMINATED)
    bench.follow()
    assert len(bench.notices.looks) == 2


def test_a_group_that_cannot_be_watched_is_a_warning(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    (bench.top / "c").mkdir()
    with caplog.at_level(logging.WARNING):
        bench.container()
    assert caplog.records
    assert bench.notices.looks == []
