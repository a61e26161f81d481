"""What containers use: read again from open files, which go with the container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from uvmd.errors import Failed
from uvmd.host.containers import Container, State
from uvmd.host.registry import Registry
from uvmd.host.usage import Usages
from uvmd.linux.cgroup_usage import FILES
from uvmd.linux.cgroups import Cgroups
from uvmd.oci.role import Kind, Role

NAMES = ("cpu.stat", "memory.current", "memory.max", "pids.current", "memory.events", "io.stat")


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def registry() -> Registry:
    return Registry()


def add(registry: Registry, top: Path, name: str, state: State = State.RUNNING) -> Container:
    container = Container(name, "", Role(Kind.STANDALONE, name), "/b", "", created_at=0.0)
    container.cgroup = f"/{name}"
    (top / name).mkdir()
    for file in NAMES:
        (top / name / file).write_text("7\n")
    registry.add(container)
    registry.advance(container, state)
    return container


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def before() -> Iterator[int]:
    count = open_files()
    yield count
    assert open_files() <= count + 2 * FILES


def test_a_look_opens_files_once_and_a_delete_closes_them(registry: Registry, top: Path, before: int) -> None:
    usages = Usages(Cgroups({}, str(top)), registry)
    a, b = add(registry, top, "a"), add(registry, top, "b")
    assert open_files() == before, "nobody has looked yet"
    assert [row["memory_bytes"] for row in usages.rows()] == [7, 7]
    assert open_files() == before + 2 * FILES
    (top / "a" / "memory.current").write_text("8\n")
    assert [row["memory_bytes"] for row in usages.rows()] == [8, 7]
    assert open_files() == before + 2 * FILES
    registry.remove(a)
    assert open_files() == before + FILES
    assert [row["id"] for row in usages.rows()] == ["b"]
    registry.remove(b)
    assert open_files() == before


def test_what_may_end_unheard_of_and_what_is_too_much_is_not_kept_open(
    registry: Registry, top: Path, before: int
) -> None:
    usages = Usages(Cgroups({}, str(top)), registry, most=1)
    creating = add(registry, top, "creating", State.CREATING)
    kept, _ = add(registry, top, "kept"), add(registry, top, "more")
    assert [(row["id"], row["processes"]) for row in usages.rows()] == [
        ("creating", 7),
        ("kept", 7),
        ("more", 7),
    ]
    assert open_files() == before + FILES
    registry.remove(creating)
    registry.remove(kept)
    assert open_files() == before


def test_a_container_that_was_deleted_during_the_look_leaves_nothing_open(
    registry: Registry, top: Path, before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    usages = Usages(Cgroups({}, str(top)), registry)
    container = add(registry, top, "a")
    listed = registry.containers()
    registry.remove(container)
    monkeypatch.setattr(registry, "containers", lambda: listed)
    assert [row["id"] for row in usages.rows()] == ["a"]
    assert open_files() == before


def test_a_container_whose_cgroup_is_gone_has_a_row(registry: Registry, top: Path) -> None:
    container = Container("web", "", Role(Kind.STANDALONE, "web"), "/b", "", created_at=0.0)
    container.cgroup = "/nowhere"
    registry.add(container)
    (row,) = Usages(Cgroups({}, str(top)), registry).rows()
    assert (row["id"], row["pod"], row["state"], row["cpu_ns"]) == ("web", "", "creating", 0)


def test_usage_that_cannot_be_read_says_of_what_and_which_file(
    registry: Registry, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int, count: int, offset: int) -> bytes:
        raise OSError(5, "Input/output error")

    add(registry, top, "a")
    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(Failed, match=r"usage of a: .*/a/cpu\.stat: Input/output error"):
        Usages(Cgroups({}, str(top)), registry).rows()
