"""Building trees from entries in any order."""

from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.image.errors import BadSource
from uvmd.image.tree import Inode, Tree, parse_path, show


def file(**fields: int) -> Inode:
    return Inode(stat.S_IFREG | 0o644, **fields)


def folder(**fields: int) -> Inode:
    return Inode(stat.S_IFDIR | 0o700, **fields)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (b"a/b", (b"a", b"b")),
        (b"./a//b/", (b"a", b"b")),
        (b"/etc/passwd", (b"etc", b"passwd")),
        (b"./", ()),
        (b"/", ()),
        (b"...", (b"...",)),
    ],
)
def test_names_of_archives_become_paths_below_the_root(name: bytes, path: tuple[bytes, ...]) -> None:
    assert parse_path(name, "entry") == path


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (b"", "entry has an empty name"),
        (b"../x", "entry '../x' has '..' in its path"),
        (b"a/../../x", "could leave the tree"),
        (b"/..", "could leave the tree"),
        (b"a\0b", "NUL byte"),
        (b"x" * 256, "256 bytes; ext4 allows 255"),
        (b"a/" * 2048 + b"x", "4097 bytes long; Linux allows 4095"),
    ],
)
def test_names_that_no_tree_can_have_are_refused(name: bytes, says: str) -> None:
    with pytest.raises(BadSource) as caught:
        parse_path(name, "entry")
    assert says in str(caught.value)


@given(st.binary(max_size=300))
def test_any_name_can_be_shown_in_one_printable_line(name: bytes) -> None:
    assert show(name).isprintable()


def test_missing_directories_are_made_up_and_described_later() -> None:
    tree = Tree()
    tree.put((b"a", b"b", b"c"), file())
    assert tree.root.children[b"a"].implied
    tree.put((b"a", b"b"), folder(uid=7))
    found = tree.find((b"a", b"b"))
    assert found is not None
    assert (found.uid, found.implied, list(found.children)) == (7, False, [b"c"])


def test_the_root_can_be_described_too() -> None:
    tree = Tree()
    tree.put((b"x",), file())
    tree.put((), folder(uid=3))
    assert (tree.root.uid, list(tree.root.children)) == (3, [b"x"])
    with pytest.raises(BadSource, match="root of the tree is not a directory"):
        tree.put((), file())


def test_a_later_entry_takes_the_place_of_an_earlier_one() -> None:
    tree = Tree()
    tree.put((b"d", b"x"), file())
    tree.put((b"d",), file(uid=1))
    found = tree.find((b"d",))
    assert found is not None
    assert (found.uid, found.children) == (1, {})


@pytest.mark.parametrize(
    ("inode", "kind"), [(Inode(stat.S_IFLNK, target=b"/etc"), "a symbolic link"), (file(), "not a directory")]
)
def test_nothing_is_put_below_what_is_no_directory(inode: Inode, kind: str) -> None:
    tree = Tree()
    tree.put((b"a",), inode)
    with pytest.raises(BadSource, match=f"below 'a', which is {kind}"):
        tree.put((b"a", b"b"), file())


def test_links_may_come_before_their_targets() -> None:
    tree = Tree()
    tree.link((b"one",), (b"two",))
    tree.link((b"two",), (b"three",))
    tree.put((b"three",), file(uid=5))
    tree.finish()
    assert tree.find((b"one",)) is tree.find((b"two",)) is tree.find((b"three",))


def test_a_link_keeps_what_its_target_was_when_it_came() -> None:
    tree = Tree()
    tree.put((b"a",), file(uid=1))
    tree.link((b"b",), (b"a",))
    tree.put((b"a",), file(uid=2))
    tree.finish()
    found = tree.find((b"b",))
    assert found is not None
    assert found.uid == 1


def test_a_file_in_a_pending_links_place_wins() -> None:
    tree = Tree()
    tree.link((b"a",), (b"b",))
    tree.put((b"a",), file(uid=9))
    tree.put((b"b",), file())
    tree.finish()
    found = tree.find((b"a",))
    assert found is not None
    assert found.uid == 9


@pytest.mark.parametrize(
    ("links", "says"),
    [
        ({b"a": b"gone"}, "'gone', which is not in this tree or layer"),
        ({b"a": b"d"}, "'d', which is a directory"),
        ({b"a": b"b", b"b": b"a"}, "point at each other"),
        ({b"a": b"a"}, "point at each other"),
    ],
)
def test_links_to_nothing_are_refused(links: dict[bytes, bytes], says: str) -> None:
    tree = Tree()
    tree.put((b"d",), folder())
    with pytest.raises(BadSource, match=says):
        for name, target in links.items():
            tree.link((name,), (target,))
        tree.finish()


@given(st.permutations([b"b", b"a/z", b"a", b"a/b", b"a-", b"c/d/e"]))
def test_the_walk_does_not_depend_on_the_order_of_entries(names: list[bytes]) -> None:
    tree = Tree()
    for name in names:
        tree.put(parse_path(name, "entry"), folder() if name == b"a" else file())
    paths = [b"/".join(path) for path, _ in tree.walk()]
    assert paths == [b"", b"a", b"a/b", b"a/z", b"a-", b"b", b"c", b"c/d", b"c/d/e"]


def test_times_are_clamped_downwards_only() -> None:
    tree = Tree()
    tree.put((b"old",), file(mtime=5))
    tree.put((b"new",), file(mtime=500))
    tree.clamp_mtime(100)
    assert {path: inode.mtime for path, inode in tree.walk() if path} == {(b"old",): 5, (b"new",): 100}
