"""Lines of mountinfo, and mounts on this machine's own kernel."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.linux import mounts

LINE = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:7 - ext3 /dev/root ro,errors=continue\n"

words = st.text(st.characters(codec="ascii", exclude_characters=" \n\\"), min_size=1, max_size=12)
words = words.filter(lambda word: word != "-")
numbers = st.integers(0, 2**31)


def test_every_field_of_a_line_is_read() -> None:
    assert list(mounts.parse_mountinfo("garbage\n" + LINE)) == [
        mounts.MountInfo(
            36,
            35,
            (98, 0),
            "/mnt1",
            "/mnt 2",
            "rw,noatime",
            ("master:1", "shared:7"),
            "ext3",
            "/dev/root",
            "ro,errors=continue",
        )
    ]


@given(
    st.lists(
        st.builds(
            mounts.MountInfo,
            numbers,
            numbers,
            st.tuples(numbers, numbers),
            words,
            words,
            words,
            st.lists(words, max_size=3).map(tuple),
            words,
            words,
            words,
        ),
        max_size=4,
    )
)
def test_what_is_written_as_the_kernel_writes_it_is_read_back(table: list[mounts.MountInfo]) -> None:
    text = "".join(
        f"{m.id} {m.parent} {m.device[0]}:{m.device[1]} {m.root} {m.target} "
        f"{' '.join((m.options, *m.propagation))} - {m.fstype} {m.source} {m.super_options}\n"
        for m in table
    )
    assert list(mounts.parse_mountinfo(text)) == table


@given(st.text(max_size=200))
def test_any_text_is_taken_for_a_mount_table(text: str) -> None:
    list(mounts.parse_mountinfo(text))


def test_read_only_is_a_word_of_the_mount_or_of_its_file_system() -> None:
    (mount,) = mounts.parse_mountinfo(LINE)
    assert mount.read_only
    assert not mount._replace(super_options="rw,errors=remount-ro").read_only


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    left = [mount for mount in mounts.mountinfo() if f"{mount.target}/".startswith(f"{tmp_path}/")]
    mounts.unmount_tree(str(tmp_path), flags=2)
    assert not left, "a test left mounts behind"


@pytest.mark.root
def test_stacked_mounts_are_peeled_one_by_one(folder: Path) -> None:
    for size in ("1m", "2m", "3m"):
        mounts.mount("stacked", str(folder), "tmpfs", data=f"size={size}")
    assert [mount.super_options.split(",")[1] for mount in mounts.mounted_at(str(folder))] == [
        "size=1024k",
        "size=2048k",
        "size=3072k",
    ]
    assert mounts.unmount_all(str(folder)) == 3
    assert mounts.unmount_all(str(folder)) == 0
    assert mounts.unmount_all(str(folder / "nowhere")) == 0


@pytest.mark.root
def test_a_stack_that_is_too_high_is_an_error_and_not_an_empty_directory(folder: Path) -> None:
    for _ in range(4):
        mounts.mount("stacked", str(folder), "tmpfs")
    with pytest.raises(OSError, match="more than 2 mounts are stacked") as caught:
        mounts.unmount_all(str(folder), max_stacked=2)
    assert (caught.value.errno, caught.value.filename) == (errno.EBUSY, str(folder))
    mounts.unmount_all(str(folder))


@pytest.mark.root
def test_a_busy_mount_stays(folder: Path) -> None:
    mounts.mount("busy", str(folder), "tmpfs")
    with open(folder / "open", "w"), pytest.raises(OSError) as caught:
        mounts.unmount_all(str(folder))
    assert caught.value.errno == errno.EBUSY
    assert mounts.unmount_all(str(folder)) == 1


@pytest.mark.root
def test_neither_a_planted_parent_nor_a_planted_end_is_followed(folder: Path) -> None:
    (folder / "real" / "mounted").mkdir(parents=True)
    (folder / "link").symlink_to("real")
    (folder / "end").symlink_to("real/mounted")
    mounts.mount("kept", str(folder / "real" / "mounted"), "tmpfs")
    with pytest.raises(OSError) as caught:
        mounts.unmount_beneath(str(folder / "link" / "mounted"))
    assert caught.value.errno == errno.ELOOP
    assert mounts.unmount_beneath(str(folder / "end")) == 0
    assert mounts.unmount_beneath(str(folder / "no" / "such")) == 0
    assert mounts.unmount_beneath(str(folder / "real" / "mounted")) == 1


@pytest.mark.root
def test_a_tree_of_mounts_goes_from_the_top(folder: Path) -> None:
    mounts.mount("outer", str(folder), "tmpfs")
    (folder / "inner").mkdir()
    mounts.mount("inner", str(folder / "inner"), "tmpfs")
    mounts.bind(str(folder / "inner"), str(folder / "inner"))
    mounts.unmount_tree(str(folder))
    assert mounts.mounted_at(str(folder)) == []


@pytest.mark.root
def test_a_descriptor_is_a_place_to_mount_on(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    fds = [os.open(folder / name, os.O_PATH | os.O_DIRECTORY) for name in "ab"]
    try:
        mounts.mount("by descriptor", fds[0], "tmpfs")
        (folder / "a" / "file").touch()
        # The descriptor stands for the directory below the mount.
        mounts.bind(str(folder / "a"), fds[1])
    finally:
        for fd in fds:
            os.close(fd)
    assert (folder / "b" / "file").exists()
    for name in "ba":
        assert mounts.unmount_beneath(str(folder / name)) == 1


@pytest.mark.root
def test_sharing_is_shown_and_a_binding_sees_what_is_mounted_later(folder: Path) -> None:
    mounts.mount("shared", str(folder), "tmpfs")
    mounts.make_shared(str(folder))
    (mount,) = mounts.mounted_at(str(folder))
    assert mount.propagation[0].startswith("shared:")
    for name in ("a", "b"):
        (folder / name).mkdir()
    mounts.bind(str(folder / "a"), str(folder / "b"), recursive=True)
    (folder / "a" / "deeper").mkdir()
    mounts.mount("later", str(folder / "a" / "deeper"), "tmpfs")
    assert len(mounts.mounted_at(str(folder / "b" / "deeper"))) == 1
    mounts.set_propagation(str(folder), mounts.PROPAGATION["rprivate"])
    mounts.unmount_tree(str(folder))


@pytest.mark.root
def test_a_copy_that_is_detached_takes_nothing_of_its_source_along(folder: Path) -> None:
    mounts.mount("shared", str(folder), "tmpfs")
    mounts.make_shared(str(folder))
    for name in ("source", "source/inner", "copy"):
        (folder / name).mkdir()
    mounts.mount("inner", str(folder / "source" / "inner"), "tmpfs")
    mounts.bind(str(folder / "source"), str(folder / "copy"), recursive=True)
    mounts.detach(str(folder / "copy"))
    assert mounts.mounted_at(str(folder / "copy")) == []
    assert len(mounts.mounted_at(str(folder / "source" / "inner"))) == 1
    mounts.set_propagation(str(folder), mounts.PROPAGATION["rprivate"])
    mounts.unmount_tree(str(folder))


@pytest.mark.root
def test_a_new_mount_is_configured_word_by_word_and_attached(folder: Path) -> None:
    fd = mounts.new_mount("tmpfs", [("source", "made"), ("size", "1m"), ("mode", "0711")], flags=1 | 8)
    target = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        mounts.attach(fd, target)
    finally:
        os.close(fd)
        os.close(target)
    (mount,) = mounts.mounted_at(str(folder))
    assert (mount.source, mount.read_only) == ("made", True)
    assert "noexec" in mount.options
    assert folder.stat().st_mode & 0o777 == 0o711
    assert mounts.unmount_all(str(folder)) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: mounts.mount("a\0b", "/nowhere", "tmpfs"),
        lambda: mounts.mount("a", "/nowhere\0", "tmpfs"),
        lambda: mounts.mount("a", "/nowhere", "tmpfs\0x"),
        lambda: mounts.mount("a", "/nowhere", "tmpfs", data="size=1m\0,ro"),
        lambda: mounts.unmount("/nowhere\0x"),
        lambda: mounts.new_mount("tmpfs\0x", []),
        lambda: mounts.attach(-1, "/nowhere\0x"),
    ],
)
def test_the_kernel_is_given_whole_texts_only(call: Callable[[], object]) -> None:
    with pytest.raises(OSError, match="has no NUL") as caught:
        call()
    assert caught.value.errno == errno.EINVAL


@pytest.mark.root
def test_what_the_file_system_says_of_a_refused_option_is_in_the_error() -> None:
    with pytest.raises(OSError, match="Unknown parameter 'bogus'") as caught:
        mounts.new_mount("tmpfs", [("bogus", "1")])
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(OSError) as caught:
        mounts.new_mount("no-such-file-system", [])
    assert caught.value.errno == errno.ENODEV
