"""The daemon's own cgroup, on trees of ordinary files."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from uvmd.daemon.own_cgroup import QUIET_S, OwnCgroup
from uvmd.errors import ConfigError
from uvmd.linux.cgroups import Cgroups
from uvmd.linux.memory_events import Notice
from uvmd.linux.notices import Notices

WARN = 1 << 20


def v1(top: Path) -> OwnCgroup:
    return OwnCgroup(Cgroups({"memory": str(top)}), "/gcs", (11, 12))


def v2(top: Path) -> OwnCgroup:
    for folder in (top, top / "gcs"):
        folder.mkdir(exist_ok=True)
        for name in (
            "cgroup.controllers",
            "cgroup.subtree_control",
            "memory.events",
            "memory.high",
            "memory.low",
        ):
            (folder / name).touch()
    (top / "cgroup.controllers").write_text("memory\n")
    return OwnCgroup(Cgroups({}, str(top)), "gcs", (11, 12))


class FakeNotices:
    def __init__(self) -> None:
        self.added: list[tuple[Notice, bool]] = []

    def add(self, notice: Notice, look: Callable[[bool], float | None], *, at_once: bool = False) -> None:
        self.added.append((notice, at_once))
        notice.close()


def test_everybody_is_moved_and_on_version_2_protected(tmp_path: Path) -> None:
    v2(tmp_path).enter(WARN)
    # A file keeps the last line that was written to it.
    assert (tmp_path / "gcs" / "cgroup.procs").read_text() == "12"
    assert (tmp_path / "gcs" / "memory.low").read_text() == str(WARN)
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory"
    assert (tmp_path / "gcs" / "cgroup.subtree_control").read_text() == "", "or it would take no process"


def test_version_1_needs_the_memory_hierarchy_only(tmp_path: Path) -> None:
    v1(tmp_path).enter(WARN)
    assert (tmp_path / "gcs" / "cgroup.procs").read_text() == "12"
    with pytest.raises(ConfigError, match=r"cgroups\.own /gcs"):
        OwnCgroup(Cgroups({"cpu": str(tmp_path)}), "/gcs", (11,)).enter(WARN)


def test_a_group_that_cannot_be_made_refuses_the_start(tmp_path: Path) -> None:
    (tmp_path / "gcs").write_text("")
    with pytest.raises(ConfigError, match=r"cgroups\.own /gcs"):
        v1(tmp_path).enter(WARN)


def use(top: Path, usage: int) -> None:
    for name in ("memory.current", "memory.usage_in_bytes"):
        (top / "gcs" / name).write_text(f"{usage}\n")


def watched(own: OwnCgroup, top: Path) -> FakeNotices:
    (top / "gcs").mkdir(exist_ok=True)
    (top / "gcs" / "cgroup.event_control").touch()
    notices = FakeNotices()
    use(top, 1)
    own.watch(cast(Notices, notices), WARN)
    return notices


@pytest.mark.parametrize("make", [v1, v2])
def test_one_warning_is_enough_for_a_while(
    tmp_path: Path, make: Callable[[Path], OwnCgroup], caplog: pytest.LogCaptureFixture
) -> None:
    own = make(tmp_path)
    assert watched(own, tmp_path).added[0][1], "what is used already is looked at too"
    with caplog.at_level(logging.WARNING):
        assert own.look(True) is None
        assert not caplog.records
        use(tmp_path, WARN + 4096)
        assert own.look(True) == QUIET_S
        assert own.look(True) == QUIET_S
        assert own.look(False) == QUIET_S, "still above"
        assert len(caplog.records) == 1
        use(tmp_path, 1)
        assert own.look(False) is None
        use(tmp_path, WARN)
        assert own.look(True) == QUIET_S
        assert len(caplog.records) == 2


def test_on_version_2_the_limit_that_tells_is_lifted_while_it_is_exceeded(tmp_path: Path) -> None:
    own = v2(tmp_path)
    watched(own, tmp_path)
    high = tmp_path / "gcs" / "memory.high"
    assert high.read_text() == str(WARN)
    use(tmp_path, WARN)
    own.look(True)
    assert high.read_text().startswith("max")
    use(tmp_path, 1)
    own.look(False)
    assert high.read_text() == str(WARN)


def test_what_cannot_be_watched_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    v1(tmp_path).watch(cast(Notices, FakeNotices()), WARN)
    assert "cannot be watched" in caplog.records[0].getMessage()


def test_leaving_moves_everybody_to_the_root(tmp_path: Path) -> None:
    own = v1(tmp_path)
    own.enter(WARN)
    own.leave()
    assert (tmp_path / "cgroup.procs").read_text() == "12"
