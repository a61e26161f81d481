"""Trees from directories of this machine."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from uvmd.image import directory
from uvmd.image.content import FileContent
from uvmd.image.directory import read_directory
from uvmd.image.errors import BadSource
from uvmd.image.tree import Inode


@pytest.fixture
def root_fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def found(root_fd: int) -> dict[str, Inode]:
    return {b"/".join(path).decode(): inode for path, inode in read_directory(root_fd).walk()}


def test_every_kind_of_file_is_seen(tmp_path: Path, root_fd: int) -> None:
    (tmp_path / "d").mkdir(mode=0o700)
    (tmp_path / "d" / "f").write_bytes(b"data")
    os.utime(tmp_path / "d" / "f", ns=(0, 1_234_567_890_987_654_321))
    os.link(tmp_path / "d" / "f", tmp_path / "h")
    (tmp_path / "s").symlink_to("/nowhere")
    os.mkfifo(tmp_path / "p")
    here = os.getcwd()
    os.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("u")
    os.chdir(here)
    tree = found(root_fd)
    assert set(tree) == {"", "d", "d/f", "h", "s", "p", "u"}
    assert tree["h"] is tree["d/f"]
    assert (tree["h"].mtime, tree["h"].mode) == (1_234_567_890, (tmp_path / "h").stat().st_mode)
    assert tree["s"].target == b"/nowhere"
    assert stat.S_ISFIFO(tree["p"].mode)
    assert stat.S_ISSOCK(tree["u"].mode)


def test_links_to_directories_are_not_followed(tmp_path: Path, root_fd: int) -> None:
    (tmp_path / "loop").symlink_to(".")
    assert set(found(root_fd)) == {"", "loop"}


def test_labels_of_this_machine_are_left_out(
    tmp_path: Path, root_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").touch()
    values = {"user.kept": b"1", "security.selinux": b"2", "btrfs.x": b"3", "security.capability": b"4"}
    monkeypatch.setattr(directory.os, "listxattr", lambda *_, **__: list(values))
    monkeypatch.setattr(directory.os, "getxattr", lambda _, name, **__: values[os.fsdecode(name)])
    assert found(root_fd)["f"].xattrs == {b"user.kept": b"1", b"security.capability": b"4"}


def test_a_file_system_without_attributes_is_fine(
    tmp_path: Path, root_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> list[str]:
        raise OSError(95, "not supported")

    (tmp_path / "f").touch()
    monkeypatch.setattr(directory.os, "listxattr", refuse)
    assert found(root_fd)["f"].xattrs == {}


def test_a_sparse_file_is_read_where_it_has_data(tmp_path: Path, root_fd: int) -> None:
    with open(tmp_path / "f", "wb") as file:
        file.seek(1 << 30)
        file.write(b"end")
    content = found(root_fd)["f"].content
    assert isinstance(content, FileContent)
    assert content.size == (1 << 30) + 3
    assert sum(span.length for span in content.spans) < 1 << 20


def test_what_cannot_be_read_is_named(tmp_path: Path, root_fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d").mkdir()
    opened = os.open

    def refuse(path: object, *args: object, **more: object) -> int:
        if path == b"d":
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(directory.os, "open", refuse)
    monkeypatch.setattr(directory.os, "geteuid", lambda: 1000)
    with pytest.raises(BadSource, match="cannot read 'd': Permission denied; run as root"):
        found(root_fd)


def test_a_directory_that_is_exchanged_while_it_is_read_is_noticed(
    tmp_path: Path, root_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "e").mkdir()
    put = directory.Tree.put

    def exchange(tree: directory.Tree, path: tuple[bytes, ...], inode: Inode) -> None:
        put(tree, path, inode)
        if path == (b"d",):
            os.rename(tmp_path / "d", tmp_path / "old")
            os.rename(tmp_path / "e", tmp_path / "d")

    monkeypatch.setattr(directory.Tree, "put", exchange)
    with pytest.raises(BadSource, match="changed while it was read"):
        found(root_fd)


def test_others_than_root_are_told_what_they_cannot_see(
    root_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory.os, "geteuid", lambda: 1000)
    assert "trusted.*" in read_directory(root_fd).warnings[0]
