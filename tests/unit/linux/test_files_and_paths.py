"""Opening, making and removing what somebody else named."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.linux import paths, syscalls
from uvmd.linux.files import write_all
from uvmd.linux.trees import remove_tree

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


@pytest.fixture(params=["openat2", "walk"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test on this kernel's openat2, and as if it had none."""

    def missing(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    if request.param == "walk":
        monkeypatch.setattr(syscalls, "openat2", missing)
    return str(request.param)


def test_plain_paths_are_opened(tmp_path: Path, kernel: str) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "f").write_text("x")
    fd = paths.open_beneath(str(tmp_path), "a/b/f", os.O_RDONLY)
    assert os.read(fd, 9) == b"x"
    assert not os.get_inheritable(fd)
    os.close(fd)


@pytest.mark.parametrize("relative", ["link/f", "a/link", "../outside/f", "a/../../outside/f"])
def test_symlinks_and_dots_are_refused(tmp_path: Path, kernel: str, relative: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "f").write_text("x")
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "a" / "link").symlink_to(tmp_path / "outside" / "f")
    with pytest.raises(OSError) as caught:
        paths.open_beneath(str(root), relative, os.O_RDONLY)
    assert caught.value.errno in (errno.ELOOP, errno.EXDEV, errno.ENOTDIR)


def test_a_link_counts_in_the_root_file_system_and_not_where_others_write(tmp_path: Path) -> None:
    for path in ("/", "/dev/null", str(tmp_path)):
        os.close(paths.open_in_vm(path, os.O_PATH))
    if os.path.islink("/bin"):
        fd = paths.open_in_vm("/bin/sh", os.O_PATH)
        assert os.path.samestat(os.fstat(fd), os.stat("/bin/sh"))
        os.close(fd)
    # The kernel's own link, in a file system that is mounted somewhere.
    for path in ("/proc/self", "/proc/self/status", "/proc/thread-self/root/etc"):
        with pytest.raises(OSError) as caught:
            paths.open_in_vm(path, os.O_PATH)
        assert caught.value.errno == errno.ELOOP


def test_missing_directories_are_made_with_the_mode_and_listed(tmp_path: Path, kernel: str) -> None:
    before = os.umask(0o077)
    try:
        fd, made = paths.ensure_directory_beneath(str(tmp_path), "a/b", 0o755)
    finally:
        os.umask(before)
    os.close(fd)
    assert made == [f"{tmp_path}/a", f"{tmp_path}/a/b"]
    assert stat.S_IMODE(os.stat(tmp_path / "a").st_mode) == 0o755
    fd, made = paths.ensure_directory_beneath(str(tmp_path), "a/b", 0o755)
    os.close(fd)
    assert made == []
    paths.remove_empty([f"{tmp_path}/a", f"{tmp_path}/a/b"])
    assert os.listdir(tmp_path) == []


def test_directories_are_made_from_one_that_is_known(tmp_path: Path, kernel: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "link").symlink_to("/tmp")
    known = paths.Known(os.open(tmp_path / "a", os.O_PATH), 1)
    try:
        for made in (["a/b", "a/b/c"], []):
            fd, now = paths.ensure_directory_beneath(str(tmp_path), "a/b/c", 0o755, known)
            assert os.path.samestat(os.fstat(fd), os.stat(tmp_path / "a" / "b" / "c"))
            os.close(fd)
            assert now == [f"{tmp_path}/{one}" for one in made]
        for bad in ("a/link", "a/link/x", "a/new/../x"):
            with pytest.raises(OSError, match=r"link|\.\."):
                paths.ensure_directory_beneath(str(tmp_path), bad, 0o755, known)
        assert sorted(os.listdir(tmp_path / "a")) == ["b", "link"]
    finally:
        os.close(known.fd)


@pytest.mark.parametrize("relative", ["new/../x", "link/x", "file/x", "new//x", "."])
def test_a_directory_that_cannot_be_made_leaves_nothing(tmp_path: Path, kernel: str, relative: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("/tmp")
    before = sorted(os.listdir(tmp_path))
    try:
        fd, _ = paths.ensure_directory_beneath(str(tmp_path), relative, 0o755)
    except OSError:
        pass
    else:
        os.close(fd)
        assert (kernel, relative) == ("openat2", ".")  # the directory itself, which is there
    assert sorted(os.listdir(tmp_path)) == before


def test_what_is_not_empty_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "f").write_text("")
    paths.remove_empty([f"{tmp_path}/a", f"{tmp_path}/a/b"])
    assert os.listdir(tmp_path / "a") == ["f"]


@pytest.mark.parametrize(
    ("path", "clean"),
    [("/a", True), ("/", True), ("/a/b", True), ("", False), ("a", False), ("//a", False), ("/a/", False),
     ("/a//b", False), ("/a/./b", False), ("/a/../b", False), ("/a\0", False)],
)  # fmt: skip
def test_a_clean_path_is_absolute_and_the_shortest(path: str, clean: bool) -> None:
    assert paths.is_clean_absolute(path) is clean


@given(
    st.lists(st.sampled_from(["a", "ab", "b"]), max_size=4),
    st.lists(st.sampled_from(["a", "ab", "b"]), max_size=4),
)
def test_below_means_more_components(left: list[str], right: list[str]) -> None:
    path, root = "/" + "/".join(left), "/" + "/".join(right)
    assert paths.is_below(path, root) is (len(left) > len(right) and left[: len(right)] == right)


def test_a_tree_is_removed_and_symlinks_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep" / "f").write_text("x")
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "f").write_text("x")
    (tree / "a" / "link").symlink_to(tmp_path / "keep")
    os.mkfifo(tree / "fifo")
    remove_tree(str(tree))
    remove_tree(str(tree))  # a missing one is fine
    assert os.listdir(tmp_path) == ["keep"]
    (tmp_path / "link").symlink_to(tmp_path / "keep")
    remove_tree(str(tmp_path / "link"))
    assert (tmp_path / "keep" / "f").read_text() == "x"


def test_a_tree_of_any_depth_is_removed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    fd = os.open(tree, DIRECTORY)
    for _ in range(2000):
        os.mkdir("d", dir_fd=fd)
        deeper = os.open("d", DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(fd)
    remove_tree(str(tree))
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_removed_is_raised_after_the_rest_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / "tree" / name).mkdir(parents=True)
    rmdir = os.rmdir

    def stubborn(path: str, *, dir_fd: int | None = None) -> None:
        if path == "b":
            raise OSError(errno.EBUSY, "Device or resource busy", path)
        rmdir(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", stubborn)
    with pytest.raises(OSError, match="busy"):
        remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path / "tree") == ["b"]


def test_everything_is_written_and_the_descriptor_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    fd = os.open(tmp_path / "f", os.O_WRONLY | os.O_CREAT)
    write_all(fd, b"0123456789")
    assert (tmp_path / "f").read_bytes() == b"0123456789"
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_an_empty_directory_is_removed_without_a_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    (tmp_path / "empty").mkdir()
    (tmp_path / "full" / "below").mkdir(parents=True)
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", none_left)
        remove_tree(str(tmp_path / "empty"))
        with pytest.raises(OSError, match="Too many open files"):
            remove_tree(str(tmp_path / "full"))
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
