"""The file that also gets a container's output."""

from __future__ import annotations

import errno
import os
import select
import stat
from pathlib import Path

import pytest

from uvmd.stdio.tee import open_tee


def test_the_file_and_its_parents_are_made_and_appended_to(tmp_path: Path) -> None:
    for text in (b"one", b"two"):
        fd = open_tee(str(tmp_path), "a/b/c.log")
        os.write(fd, text)
        os.close(fd)
    assert (tmp_path / "a" / "b" / "c.log").read_bytes() == b"onetwo"
    assert stat.S_IMODE(os.stat(tmp_path / "a" / "b" / "c.log").st_mode) == 0o644
    assert stat.S_IMODE(os.stat(tmp_path / "a" / "b").st_mode) == 0o755


def test_a_file_right_in_the_directory_needs_no_parents(tmp_path: Path) -> None:
    fd = open_tee(str(tmp_path), "c.log")
    assert not os.get_inheritable(fd)
    assert os.get_blocking(fd)
    os.close(fd)


@pytest.mark.parametrize("relative", ["link.log", "dir/x.log", "a/../../x.log"])
def test_symlinks_and_dots_are_not_followed(tmp_path: Path, relative: str) -> None:
    logs, outside = tmp_path / "logs", tmp_path / "outside"
    logs.mkdir()
    outside.mkdir()
    (logs / "link.log").symlink_to(outside / "x.log")
    (logs / "dir").symlink_to(outside)
    with pytest.raises(OSError):
        open_tee(str(logs), relative)
    assert os.listdir(outside) == []


def test_what_is_no_file_is_not_even_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.log")
    reader = os.open(tmp_path / "fifo.log", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(OSError, match="regular"):
        open_tee(str(tmp_path), "fifo.log")
    hangup = select.poll()
    hangup.register(reader, 0)
    # A fifo remembers that it had a writer.
    assert hangup.poll(0) == []
    os.close(reader)


def test_a_file_that_comes_while_it_is_made_is_looked_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def races(path: str, flags: int, *rest: int, **where: int) -> int:
        if flags & os.O_CREAT:
            (tmp_path / "c.log").symlink_to(tmp_path / "elsewhere")
        return real(path, flags, *rest, **where)

    monkeypatch.setattr(os, "open", races)
    with pytest.raises(OSError) as refused:
        open_tee(str(tmp_path), "c.log")
    assert refused.value.errno == errno.ELOOP
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.log")
    with pytest.raises(OSError, match="regular"):
        open_tee(str(tmp_path), "fifo.log")
