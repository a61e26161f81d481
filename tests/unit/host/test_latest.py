"""The file of which the last whole line counts: whatever ends the daemon, a value is whole."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.host import latest
from uvmd.host.latest import Latest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "devices.json"


def test_what_was_kept_last_counts(path: Path) -> None:
    file = Latest(str(path))
    assert file.read() is None
    for number in range(3):
        file.keep(b"%d" % number)
        assert Latest(str(path)).read() == b"%d" % number
    assert path.read_bytes() == b"0\n1\n2\n"


def test_a_later_daemon_begins_a_file_of_its_own(path: Path) -> None:
    Latest(str(path)).keep(b"1")
    later = Latest(str(path))
    later.keep(b"2")
    later.keep(b"3")
    assert path.read_bytes() == b"2\n3\n"


@given(cut=st.integers(1, 8))
def test_a_line_that_a_dying_daemon_did_not_finish_is_none(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "devices.json"
    file = Latest(str(path))
    file.keep(b'{"v":1}')
    file.keep(b'{"v":2}')
    os.truncate(path, path.stat().st_size - cut)
    assert Latest(str(path)).read() == b'{"v":1}'


def test_a_release_that_wrote_no_end_of_line_is_read(path: Path) -> None:
    path.write_bytes(b'{"v":1}')
    assert Latest(str(path)).read() == b'{"v":1}'


@pytest.mark.parametrize("line", [b'{"v":1}', b'{"v":1}\n'])
def test_a_daemon_that_dies_between_removing_and_renaming_loses_nothing(path: Path, line: bytes) -> None:
    path.with_name("devices.json.new").write_bytes(line)
    assert Latest(str(path)).read() == b'{"v":1}'


@pytest.mark.parametrize("reads", [True, False])
def test_what_such_a_daemon_left_outlives_a_value_that_cannot_be_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch, reads: bool
) -> None:
    path.with_name("devices.json.new").write_bytes(b'{"v":1}\n')
    file = Latest(str(path))
    if reads:
        assert file.read() == b'{"v":1}'

    def full(name: str, data: bytes) -> None:
        Path(name).write_bytes(data[:3])
        raise OSError(errno.ENOSPC, "No space left on device", name)

    monkeypatch.setattr(latest, "write_whole", full)
    with pytest.raises(OSError, match="No space"):
        file.keep(b'{"v":2}')
    assert Latest(str(path)).read() == b'{"v":1}'


def test_a_first_value_that_was_cut_off_is_none(path: Path) -> None:
    aside = path.with_name("devices.json.new")
    aside.write_bytes(b'{"v":')
    file = Latest(str(path))
    assert file.read() is None
    file.keep(b"{}")
    assert not aside.exists()


def test_the_file_stays_small(path: Path) -> None:
    file, line = Latest(str(path)), json.dumps("x" * 10_000).encode()
    sizes = set()
    for _ in range(50):
        file.keep(line)
        sizes.add(path.stat().st_size)
    assert max(sizes) < 200_000
    assert min(sizes) == len(line) + 1
    assert file.read() == line


def test_a_file_that_somebody_removed_is_made_again(path: Path) -> None:
    file = Latest(str(path))
    file.keep(b"1")
    path.unlink()
    file.keep(b"2")
    assert path.read_bytes() == b"2\n"


def test_a_line_that_does_not_fit_leaves_the_one_before(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, write = Latest(str(path)), os.write
    file.keep(b"1")
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda fd, data: write(fd, data[:2]))
        with pytest.raises(OSError, match="No space") as raised:
            file.keep(b"12345")
    assert raised.value.errno == errno.ENOSPC
    assert file.read() == b"1"
    file.keep(b"2")
    assert path.read_bytes() == b"1\n2\n"
