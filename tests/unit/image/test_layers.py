"""Whiteouts as overlayfs wants them, and layers pressed into one."""

from __future__ import annotations

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.image.archives import Entry, directory, entry, layer, link, symlink
from uvmd.image.errors import BadSource
from uvmd.image.layers import as_overlay, squash
from uvmd.image.tars import Layer
from uvmd.image.tree import Inode, Tree

OPAQUE = {b"trusted.overlay.opaque": b"y"}


def by_name(tree: Tree) -> dict[str, Inode]:
    return {b"/".join(path).decode(): inode for path, inode in tree.walk() if path}


def data_of(inode: Inode) -> bytes:
    assert inode.content is not None
    with inode.content.opened() as fd:
        return b"".join(os.pread(fd, span.length, span.at) for span in inode.content.spans)


def test_a_whiteout_becomes_a_device_that_overlayfs_knows() -> None:
    found = by_name(as_overlay(layer(entry("d/.wh.gone", mtime=5))))
    assert set(found) == {"d", "d/gone"}
    gone = found["d/gone"]
    assert (gone.mode, gone.device, gone.mtime, gone.is_whiteout) == (stat.S_IFCHR, (0, 0), 5, True)


def test_an_opaque_mark_becomes_an_attribute_of_its_directory() -> None:
    found = by_name(as_overlay(layer(entry("d/.wh..wh..opq"), directory("d", uid=3))))
    assert set(found) == {"d"}
    assert (found["d"].xattrs, found["d"].uid) == (OPAQUE, 3)


def test_what_is_gone_and_made_anew_hides_what_was_below() -> None:
    found = by_name(as_overlay(layer(entry(".wh.d"), directory("d"), entry(".wh.f"), entry("f", b"new"))))
    assert set(found) == {"d", "f"}
    assert found["d"].xattrs == OPAQUE
    assert data_of(found["f"]) == b"new"


def test_a_whiteout_inside_a_directory_that_is_gone_itself() -> None:
    found = by_name(as_overlay(layer(entry(".wh.a"), entry("a/.wh.b"))))
    assert (found["a"].xattrs, found["a/b"].is_whiteout) == (OPAQUE, True)


def test_the_bookkeeping_of_aufs_is_left_out() -> None:
    assert not by_name(as_overlay(layer(entry(".wh..wh.aufs"), entry(".wh..wh.plnk/1", b"x"))))


def test_a_whiteout_below_a_file_is_refused() -> None:
    with pytest.raises(BadSource, match="below 'f', which is not a directory"):
        as_overlay(layer(entry("f"), entry("f/.wh.x")))


def merged(*layers: list[Entry]) -> dict[str, Inode]:
    return by_name(squash([layer(*entries) for entries in layers]))


BASE = [directory("d", mode=0o700), entry("d/one", b"1"), entry("d/two", b"2"), entry("f", b"base")]


def test_upper_files_win_and_others_show_through() -> None:
    found = merged(BASE, [entry("f", b"top"), entry("d/three", b"3")])
    assert set(found) == {"d", "d/one", "d/two", "d/three", "f"}
    assert data_of(found["f"]) == b"top"
    # No entry of the upper layer described the directory.
    assert found["d"].mode == stat.S_IFDIR | 0o700


def test_a_directory_that_is_described_again_gets_those_attributes() -> None:
    assert merged(BASE, [directory("d", mode=0o711)])["d"].mode == stat.S_IFDIR | 0o711


def test_whiteouts_take_away_and_leave_no_trace() -> None:
    assert set(merged(BASE, [entry("d/.wh.one"), entry(".wh.f"), entry(".wh.never")])) == {"d", "d/two"}
    assert set(merged(BASE, [entry(".wh.d")])) == {"f"}


def test_a_whiteout_spares_its_own_layer() -> None:
    found = merged(BASE, [entry("d/.wh..wh..opq"), entry("d/new", b"n"), entry(".wh.f"), entry("f", b"n")])
    assert set(found) == {"d", "d/new", "f"}
    assert found["d"].xattrs == {}


def test_whiteouts_in_the_form_of_overlayfs_count_too() -> None:
    device = entry("d/one", kind=b"3")
    assert set(merged(BASE, [device])) == {"d", "d/two", "f"}
    opaque = directory("d", pax_headers={"SCHILY.xattr.trusted.overlay.opaque": "y"})
    found = merged(BASE, [opaque, entry("d/x/y")])
    assert set(found) == {"d", "d/x", "d/x/y", "f"}
    assert found["d"].xattrs == {}


def test_files_and_directories_replace_each_other() -> None:
    assert set(merged(BASE, [entry("d", b"file now")])) == {"d", "f"}
    assert set(merged(BASE, [entry("f/below")])) == {"d", "d/one", "d/two", "f", "f/below"}
    assert set(merged([symlink("l", "d")], [entry("l/x")])) == {"l", "l/x"}


def test_hard_links_of_a_lower_layer_stay_linked() -> None:
    found = merged([entry("a", b"x"), link("b", "a"), link("c", "a")], [entry("a", b"y")])
    assert found["b"] is found["c"]
    assert found["a"] is not found["b"]


def test_warnings_of_all_layers_are_kept() -> None:
    noisy = entry("f", pax_headers={"SCHILY.acl.access": "x"})
    assert len(squash([layer(noisy), layer(noisy)]).warnings) == 2


paths = st.sampled_from(["a", "b", "a/a", "a/b", "b/a", "a/a/a"])
operations = st.lists(
    st.tuples(st.sampled_from(["file", "dir", "gone", "opaque"]), paths),
    max_size=5,
    unique_by=lambda one: one[1],
)


def model(layers: list[list[tuple[str, str]]]) -> dict[str, str]:
    """What OCI says, on a plain dict; a layer's whiteouts first, then its entries."""
    state: dict[str, str] = {}

    def drop(path: str, itself: bool) -> None:
        for name in list(state):
            if name.startswith(f"{path}/") or (itself and name == path):
                del state[name]

    for operations in layers:
        for kind, path in operations:
            if kind in ("gone", "opaque"):
                drop(path, kind == "gone")
        for kind, path in operations:
            if kind in ("file", "dir"):
                above = path.split("/")[:-1]
                for depth in range(1, len(above) + 1):
                    parent = "/".join(above[:depth])
                    if state.get(parent) != "dir":
                        state[parent] = "dir"
                if kind == "file":
                    drop(path, True)
                state[path] = kind
    return state


@given(st.lists(operations, max_size=4))
def test_squashing_does_what_a_plain_model_of_oci_does(layers: list[list[tuple[str, str]]]) -> None:
    parsed: list[Layer] = []
    kept: list[list[tuple[str, str]]] = []
    for operations in layers:
        files = {path for kind, path in operations if kind == "file"}
        sane = [
            (kind, path)
            for kind, path in sorted(operations, key=lambda one: one[1])
            if not any(path.startswith(f"{file}/") for file in files)
        ]
        kept.append(sane)
        entries = []
        for kind, path in sane:
            above, _, last = path.rpartition("/")
            slash = f"{above}/" if above else ""
            entries.append(
                {
                    "file": entry(path),
                    "dir": directory(path),
                    "gone": entry(f"{slash}.wh.{last}"),
                    "opaque": entry(f"{path}/.wh..wh..opq"),
                }[kind]
            )
        parsed.append(layer(*entries))
    found = {name: "dir" if inode.is_directory else "file" for name, inode in by_name(squash(parsed)).items()}
    assert found == model(kept)
