"""The run directory is claimed by one daemon and keeps the gate's memory."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from uvmd.daemon.run_dir import RunDir
from uvmd.errors import ConfigError


def test_it_is_made_for_its_owner_alone_even_where_it_was_open(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o755)
    RunDir(str(folder)).close()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_second_daemon_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    first = RunDir(str(tmp_path))
    with pytest.raises(ConfigError, match="in use by another"):
        RunDir(str(tmp_path))
    first.close()
    RunDir(str(tmp_path)).close()


def test_a_path_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file/run: Not a directory"):
        RunDir(str(tmp_path / "file" / "run"))


def test_what_the_gate_keeps_comes_back_and_is_owner_only(tmp_path: Path) -> None:
    run_dir = RunDir(str(tmp_path))
    assert run_dir.load_gate() is None
    run_dir.save_gate({"v": 1, "settings": None})
    assert run_dir.load_gate() == {"v": 1, "settings": None}
    assert os.stat(tmp_path / "gate.json").st_mode & 0o777 == 0o600
    run_dir.forget_gate()
    run_dir.forget_gate()
    assert run_dir.load_gate() is None
    run_dir.close()


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_memory_that_cannot_be_read_is_an_error_and_not_an_empty_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "gate.json").write_text(text)
    run_dir = RunDir(str(tmp_path))
    with pytest.raises(ValueError):
        run_dir.load_gate()
    run_dir.close()


class FullDisk:
    """A disk with so much room left: files of its own folder take it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self._folder, self.room, self._real = folder, room, os.write
        monkeypatch.setattr(os, "write", self._write)

    def _write(self, fd: int, data: bytes) -> int:
        used = sum(path.stat().st_size for path in self._folder.iterdir())
        fits = bytes(data)[: max(0, self.room - used)]
        if not fits:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._real(fd, fits)


def test_a_state_finds_room_where_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = RunDir(str(tmp_path))
    run_dir.save_gate({"policy": "x" * 5000, "door": None})
    used = sum(path.stat().st_size for path in tmp_path.iterdir())
    disk = FullDisk(tmp_path, monkeypatch, used + 10)
    run_dir.save_gate({"policy": "x" * 5000, "door": "y" * 1000})
    assert run_dir.load_gate() == {"policy": "x" * 5000, "door": "y" * 1000}
    # What was set aside is used up; the state stays what it is, and whole.
    disk.room = 0
    with pytest.raises(OSError, match="No space"):
        run_dir.save_gate({"policy": "", "door": "z"})
    assert run_dir.load_gate() == {"policy": "x" * 5000, "door": "y" * 1000}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gate.json"]
    disk.room = 100_000
    run_dir.save_gate({"door": "z"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gate.json", "gate.reserve"]
    run_dir.forget_gate()
    assert list(tmp_path.iterdir()) == []
    run_dir.close()
