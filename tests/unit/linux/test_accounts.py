"""passwd and group files of images, which may hold anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.linux.accounts import Accounts, Group, User, parse_group, parse_passwd, read_accounts


def test_ordinary_lines_are_read() -> None:
    assert parse_passwd("root:x:0:0:root:/root:/bin/sh\n\n bob:x:7:8::/:\n") == (
        User("root", 0, 0),
        User("bob", 7, 8),
    )
    assert parse_group("root:x:0:\nwheel:x:10:bob,eve\n") == (Group("root", 0), Group("wheel", 10))


def test_short_lines_and_bad_numbers_count_as_empty_and_zero() -> None:
    assert parse_passwd("a\nb:x\nc:x:1\nd:x:z:-\ne:x:1_0:٣\n") == (
        User("a", 0, 0), User("b", 0, 0), User("c", 1, 0), User("d", 0, 0), User("e", 0, 0),
    )  # fmt: skip
    assert parse_group("a\nb:x:+5\nc:x:-5") == (Group("a", 0), Group("b", 5), Group("c", -5))


def test_only_group_lines_can_be_comments() -> None:
    assert parse_group("#x:x:1:\n # y:x:2:\nz:x:3:") == (Group("z", 3),)
    assert parse_passwd("#x:x:1:1") == (User("#x", 1, 1),)


@given(st.text(max_size=200))
def test_any_text_is_read_without_an_error(text: str) -> None:
    for user in parse_passwd(text):
        assert isinstance(user.uid, int)
    for group in parse_group(text):
        assert not group.name.startswith("#")


def test_missing_files_and_a_missing_root_are_told_apart_from_empty_ones(tmp_path: Path) -> None:
    assert read_accounts(str(tmp_path / "nowhere")) == Accounts(None, None)
    assert read_accounts(str(tmp_path)) == Accounts(None, None)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("")
    assert read_accounts(str(tmp_path)) == Accounts((), None)


def test_symlinks_are_resolved_inside_the_image(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("outside:x:1:1\n")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "passwd").write_text("inside:x:2:2\n")
    (root / "etc" / "passwd").symlink_to("/../../passwd")
    (root / "etc" / "group").symlink_to(tmp_path / "passwd")
    assert read_accounts(str(root)) == Accounts((User("inside", 2, 2),), None)


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc" / "passwd")
    (tmp_path / "etc" / "group").mkdir()
    assert read_accounts(str(tmp_path)) == Accounts(None, None)


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    with open(tmp_path / "etc" / "passwd", "wb") as file:
        file.truncate(64 << 20)
    with pytest.raises(OSError, match="larger than"):
        read_accounts(str(tmp_path))
