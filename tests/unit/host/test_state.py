"""A distribution's state: an object and the log beside it, whole whatever ends the daemon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from uvmd.host.entries import Entries, mark_of
from uvmd.host.state import FileState


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "uvmd-thing.json"


def test_a_plugin_s_state_is_one_object_kept_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "plugins" / "dist.json"
    state = FileState(str(path))
    assert state.load() == {}
    state.save({"v": 1, "list": [1]})
    state.save({"v": 2})
    assert FileState(str(path)).load() == state.load() == {"v": 2}
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["dist.json"]


def test_entries_belong_to_the_object_saved_before_them(path: Path) -> None:
    state = FileState(str(path))
    assert (state.load(), state.entries()) == ({}, [])
    state.append({"n": 0})
    assert FileState(str(path)).entries() == [{"n": 0}]
    state.save({"a": 1})
    assert (state.load(), state.entries()) == ({"a": 1}, [])
    state.append({"n": 1})
    state.append({"n": 2})
    later = FileState(str(path))
    assert (later.load(), later.entries()) == ({"a": 1}, [{"n": 1}, {"n": 2}])
    later.append({"n": 3})
    assert FileState(str(path)).entries() == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}


def test_what_a_dying_daemon_did_not_finish_is_no_entry(path: Path) -> None:
    state = FileState(str(path))
    state.save({"a": 1})
    state.append({"n": 1})
    state.append({"n": 2})
    log = Path(f"{path}.log")
    log.write_bytes(log.read_bytes()[:-3])
    later = FileState(str(path))
    assert later.entries() == [{"n": 1}]
    later.append({"n": 5})
    assert FileState(str(path)).entries() == [{"n": 1}, {"n": 5}]


def test_a_log_that_an_object_has_overtaken_is_nobody_s(path: Path) -> None:
    state = FileState(str(path))
    state.save({"a": 1})
    state.append({"n": 1})
    path.write_text(json.dumps({"a": 2}))  # as if ended between the two steps
    later = FileState(str(path))
    assert later.entries() == []
    later.append({"n": 2})
    assert later.entries() == [{"n": 2}]


def test_a_log_that_does_not_fit_is_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries, owner = Entries(str(tmp_path / "log")), mark_of(b"")
    entries.append({"n": 1}, owner)
    real = __import__("os").write
    monkeypatch.setattr("os.write", lambda fd, data: real(fd, data[:3]))
    with pytest.raises(OSError, match="No space"):
        entries.append({"n": 2}, owner)
    monkeypatch.undo()
    assert entries.read(owner) == [{"n": 1}]
    entries.append({"n": 3}, owner)
    assert entries.read(owner) == [{"n": 1}, {"n": 3}]
    entries.end()
    assert list(tmp_path.iterdir()) == []
