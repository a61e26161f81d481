"""Directories that are made to mount on, and gone with the last mount in them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.api import Undo
from uvmd.api.testing.kernel import FakeKernel
from uvmd.errors import Failed
from uvmd.linux import mount_points, mounts

names = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(
    lambda parts: "/nowhere/" + "/".join(parts)
)


def test_a_mount_point_is_made_with_its_parents_and_taken_back(tmp_path: Path) -> None:
    undo, path = Undo(), tmp_path / "a" / "b"
    expected = mount_points.directories_of(str(path), [])
    with mount_points.make_mount_point(str(path), undo) as fd:
        assert os.path.samestat(os.fstat(fd), path.stat())
    assert expected == [str(path.parent), str(path)]
    assert {oct(Path(one).stat().st_mode & 0o777) for one in expected} == {"0o700"}
    undo.close()
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_before_stays(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    undo = Undo()
    assert mount_points.directories_of(str(tmp_path / "a"), []) == []
    with mount_points.make_mount_point(str(tmp_path / "a"), undo):
        pass
    undo.close()
    assert (tmp_path / "a").is_dir()


def test_a_link_or_a_file_on_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file").touch()
    for path, code in (
        (tmp_path / "link" / "x", errno.ELOOP),
        (tmp_path / "link", errno.ENOTDIR),
        (tmp_path / "file", errno.ENOTDIR),
        (tmp_path / "file" / "x", errno.ENOTDIR),
    ):
        with pytest.raises(OSError) as caught, mount_points.make_mount_point(str(path), Undo()):
            pass
        assert caught.value.errno in (code, errno.ENOTDIR)
    assert list((tmp_path / "real").iterdir()) == []


def test_directories_that_were_made_for_others_go_with_the_last(tmp_path: Path) -> None:
    first, second = (str(tmp_path / "mounts" / name) for name in "ab")
    made = mount_points.directories_of(first, [])
    for path in made:
        os.mkdir(path)
    also = mount_points.directories_of(second, [made, [str(tmp_path / "other")]])
    assert also == [str(tmp_path / "mounts"), second]
    os.mkdir(second)
    mount_points.remove_directories(made)
    assert os.path.isdir(second)
    mount_points.remove_directories(also)
    assert list(tmp_path.iterdir()) == []
    mount_points.remove_directories(also)


@given(names, names)
def test_only_what_lies_on_the_way_is_inherited(path: str, other: str) -> None:
    made = mount_points.directories_of(other, [])
    found = mount_points.directories_of(path, [made])
    assert found == sorted(found, key=len)
    assert set(found) == {path[:at] for at in range(1, len(path)) if path[at] == "/"} - {""} | {path}


def test_a_directory_that_cannot_be_removed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise OSError(errno.EIO, "input/output error", path)

    monkeypatch.setattr(os, "rmdir", refuse)
    with pytest.raises(OSError, match="input/output error"):
        mount_points.remove_directories([str(tmp_path)])
    with pytest.raises(Failed, match=f"removing the directory {tmp_path} failed: input/output error"):
        mount_points.remove_last(str(tmp_path), 1)


def test_something_is_there_or_not_and_a_link_on_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "link").symlink_to(".")
    (tmp_path / "file").touch()
    assert mount_points.exists(str(tmp_path))
    assert mount_points.exists(str(tmp_path / "dangling"))
    assert not mount_points.exists(str(tmp_path / "no" / "such"))
    assert not mount_points.exists(str(tmp_path / "file" / "x"))
    with pytest.raises(OSError) as caught:
        mount_points.exists(str(tmp_path / "link" / "file"))
    assert caught.value.errno == errno.ELOOP


def test_only_mounts_of_the_named_devices_are_taken_from_the_top(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = FakeKernel(tmp_path)
    kernel.install(monkeypatch)
    path = str(tmp_path)
    for source in ("kept", "ours"):
        mounts.mount(source, path, "tmpfs")
    kept, ours = (mount.device for mount in kernel.mounts)
    mount_points.unmount_devices(path, [(9, 9)])
    mount_points.unmount_devices(path, [ours])
    assert [mount.device for mount in kernel.mounts] == [kept]
