"""The files and registrations behind notices about memory, on trees of ordinary files."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from uvmd.linux import memory_events
from uvmd.linux.cgroups import Cgroups
from uvmd.linux.memory_events import Memory


def tree(top: Path, **files: str) -> None:
    top.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (top / name.replace("__", ".")).write_text(text)


def v1(top: Path) -> Cgroups:
    return Cgroups({"memory": str(top)})


def v2(top: Path) -> Cgroups:
    return Cgroups({}, str(top))


def test_version_1_registers_an_eventfd_for_the_file_it_is_about(tmp_path: Path) -> None:
    tree(tmp_path / "p", memory__oom_control="oom_kill 0\n", cgroup__event_control="")
    tree(tmp_path / "p", memory__usage_in_bytes="0\n")
    notice = memory_events.notice_of_kills(v1(tmp_path), "/p")
    told, about = (tmp_path / "p" / "cgroup.event_control").read_text().split()
    assert int(told) == notice.fd
    assert int(about) != notice.fd
    os.eventfd_write(notice.fd, 1)
    notice.clear()
    with pytest.raises(BlockingIOError):
        os.eventfd_read(notice.fd)
    notice.clear()
    notice.close()
    notice.close()
    usage = memory_events.notice_of_usage(v1(tmp_path), "/p", 4096)
    assert (tmp_path / "p" / "cgroup.event_control").read_text().split()[2:] == ["4096"]
    usage.close()


def test_version_2_polls_the_events_and_sets_the_limit_that_tells(tmp_path: Path) -> None:
    tree(tmp_path / "p", memory__events="oom_kill 3\n", memory__high="max\n")
    notice = memory_events.notice_of_usage(v2(tmp_path), "/p", 4096)
    assert notice.mask == select.EPOLLPRI
    assert (tmp_path / "p" / "memory.high").read_text().startswith("4096")
    memory_events.set_high(v2(tmp_path), "/p", None)
    assert (tmp_path / "p" / "memory.high").read_text().startswith("max")
    notice.clear()
    notice.close()
    memory_events.notice_of_kills(v2(tmp_path), "/p").close()


def test_no_descriptor_is_left_when_the_group_is_not_there(tmp_path: Path) -> None:
    tree(tmp_path / "p", memory__oom_control="")
    before = len(os.listdir("/proc/self/fd"))
    for cgroups, path in (
        (v1(tmp_path), "/q"),
        (v1(tmp_path), "/p"),
        (v2(tmp_path), "/q"),
        (Cgroups({"cpu": "/x"}), "/p"),
    ):
        with pytest.raises(FileNotFoundError):
            memory_events.notice_of_kills(cgroups, path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_kills_are_counted_by_either_version(tmp_path: Path) -> None:
    tree(tmp_path / "p", memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    tree(tmp_path / "p", memory__events="low 0\noom 9\noom_kill 3\n")
    assert memory_events.kills(v1(tmp_path), "/p") == 2
    assert memory_events.kills(v2(tmp_path), "/p") == 3
    (tmp_path / "p" / "memory.oom_control").write_text("under_oom 0\n")
    assert memory_events.kills(v1(tmp_path), "/p") == 0


def test_memory_is_what_is_known_and_no_limit_is_none(tmp_path: Path) -> None:
    tree(tmp_path / "p", memory__current="5\n", memory__peak="7\n", memory__max="max\n")
    tree(tmp_path / "p", memory__usage_in_bytes="6\n", memory__limit_in_bytes="9223372036854771712\n")
    assert memory_events.memory(v2(tmp_path), "/p") == Memory(5, 7, None)
    assert memory_events.memory(v1(tmp_path), "/p") == Memory(6, None, None)
    (tmp_path / "p" / "memory.limit_in_bytes").write_text("16777216\n")
    assert memory_events.memory(v1(tmp_path), "/p").limit == 16777216
    assert memory_events.memory(v2(tmp_path), "/gone") == Memory(None, None, None)
