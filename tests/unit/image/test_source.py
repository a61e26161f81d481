"""Directories, tars and layouts, opened by their path."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.image.archives import CONFIG, MANIFEST, TAR, Entry, Layout, entry, packed, region, tar
from uvmd.image import spool
from uvmd.image.build import build_image
from uvmd.image.checking import Check
from uvmd.image.content import Region
from uvmd.image.errors import BadSource, NoSpace
from uvmd.image.source import open_source
from uvmd.image.spool import decompressed, find_compression, spooled

FILES: list[Entry] = [entry("d/f", b"data" * 1000), entry("d/.wh.x"), entry("z", b"last")]


def names(path: Path | str, **options: Any) -> list[list[str]]:
    with open_source(str(path), **options) as source:
        found = []
        for layer in source.layers:
            with layer.tree() as tree:
                found.append([b"/".join(name).decode() for name, _ in tree.walk() if name])
        return found


def squashed(path: Path) -> list[str]:
    with open_source(str(path)) as source, source.squashed() as tree:
        return [b"/".join(name).decode() for name, _ in tree.walk() if name]


@pytest.mark.parametrize("kind", ["", "gzip", "zstd"])
def test_a_tar_may_be_packed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(packed(tar(*FILES), kind))
    assert names(path) == [["d", "d/f", "d/x", "z"]]
    assert squashed(path) == ["d", "d/f", "z"]


def test_a_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / ".wh.x").write_text("not a whiteout here")
    assert names(tmp_path) == [["sub", "sub/.wh.x"]]


@pytest.mark.parametrize("as_tar", [False, True])
def test_a_layout_gives_one_tree_a_layer(tmp_path: Path, as_tar: bool) -> None:
    layout = Layout()
    layout.image([tar(*FILES), tar(entry("d/.wh.f"), entry("new"))], kinds=["zstd", "gzip"])
    path = tmp_path / "oci"
    if as_tar:
        path.write_bytes(layout.tar())
    else:
        layout.write(path)
    assert names(path) == [["d", "d/f", "d/x", "z"], ["d", "d/f", "new"]]
    assert squashed(path) == ["d", "new", "z"]


def test_a_pipe_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pipe:
        buffer = io.BytesIO(packed(tar(*FILES), "gzip"))

    monkeypatch.setattr(sys, "stdin", Pipe)
    assert names("-") == [["d", "d/f", "d/x", "z"]]


def test_a_named_pipe_is_read_too(tmp_path: Path) -> None:
    content = io.BytesIO(tar(*FILES))
    with ExitStack() as stack:
        found = spooled(content, "p", stack, str(tmp_path))
        assert found.read(0, found.size) == content.getvalue()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "cannot open"),
        (lambda path: path.write_bytes(b""), "is cut off"),
        (lambda path: path.write_bytes(b"\xfd7zXZ\0" + bytes(600)), "packed by xz"),
        (lambda path: path.write_bytes(b"hello" * 200), "is not a tar archive"),
        (lambda path: path.symlink_to("/dev/null"), "neither a directory nor a tar"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, make: Any, says: str) -> None:
    make(tmp_path / "x")
    with pytest.raises(BadSource, match=says):
        names(tmp_path / "x")


def test_what_chooses_an_image_needs_a_layout(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="no image to choose with --platform or --ref"):
        names(tmp_path, platform="linux/amd64")


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("kind", ["", "gzip", "zstd"])
def test_a_damaged_layer_is_refused(tmp_path: Path, kind: str) -> None:
    layout = Layout()
    layout.image([tar(*FILES)], kinds=[kind])
    name = next(name for name, content in layout.files.items() if content == packed(tar(*FILES), kind))
    layout.files[name] = flipped(layout.files[name])
    with pytest.raises(BadSource, match="damaged"):
        names(layout.write(tmp_path / "oci"))


def hashes(path: Path, *, alone: bool, squash: bool = False) -> list[str]:
    with open_source(str(path)) as source:
        if squash:
            with source.squashed() as tree:
                return [build_image(tree, None, alone=alone).root_hash]
        found = []
        for layer in source.layers:
            with layer.tree() as tree:
                found.append(build_image(tree, None, alone=alone).root_hash)
        return found


@pytest.mark.parametrize("squash", [False, True])
def test_a_layer_has_one_hash_wherever_it_lies(tmp_path: Path, squash: bool) -> None:
    # Files in another order than the tree's, one that a later one replaces, and one with a hole.
    sparse = entry("hole", b"x" + bytes(50_000) + b"y")
    first = tar(entry("z", b"1" * 9000), entry("a", b"old" * 3000), entry("a", b"new" * 9000), sparse)
    layers = [first, tar(*FILES)]
    layout = Layout()
    layout.image(layers)
    (tmp_path / "tar").write_bytes(layout.tar())
    packed_layout = Layout()
    packed_layout.image(layers, kinds=["gzip", "gzip"])
    places = [layout.write(tmp_path / "plain"), tmp_path / "tar", packed_layout.write(tmp_path / "packed")]
    found = [hashes(place, alone=alone, squash=squash) for place in places for alone in (True, False)]
    assert len(set(map(tuple, found))) == 1
    if not squash:
        (tmp_path / "alone").write_bytes(layers[1])
        assert found[0][1:] == hashes(tmp_path / "alone", alone=True)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("where", ["header", "data", "covered", "padding", "end"])
def test_damage_anywhere_in_a_plain_layer_is_found_before_an_image_is(
    tmp_path: Path, where: str, alone: bool
) -> None:
    content = tar(entry("z", b"1" * 9000), entry("a", b"old" * 3000), entry("a", b"new" * 9000))
    at = {
        "header": 512 + 9216 + 5,
        "data": content.index(b"1" * 9000) + 4500,
        "covered": content.index(b"oldold"),
        "padding": 512 + 9001,
        "end": len(content) - 1,
    }[where]
    layout = Layout()
    layout.image([content])
    name = next(name for name, found in layout.files.items() if found == content)
    layout.files[name] = content[:at] + bytes((content[at] ^ 1,)) + content[at + 1 :]
    path = layout.write(tmp_path / "oci")
    with open_source(str(path)) as source, pytest.raises(BadSource, match="damaged: its digest is"):
        with source.layers[0].tree() as tree:
            build_image(tree, tmp_path / "image", alone=alone)
            pytest.fail("an image was made")
    assert not (tmp_path / "image").exists()


@given(st.data())
def test_a_digest_is_right_in_whatever_order_pieces_pass_by(data: st.DataObject) -> None:
    content = data.draw(st.binary(max_size=300))
    whole = region(b"before" + content + b"behind")
    inner = Region(whole.fd, 6, len(content), "inner")
    check = Check(inner, f"sha256:{hashlib.sha256(content).hexdigest()}")
    check.watches = data.draw(st.booleans())
    wrong = Check(inner, "sha256:" + "0" * 64)
    wrong.watches = check.watches
    places = st.tuples(st.integers(0, len(content)), st.integers(0, 100))
    for begin, length in data.draw(st.lists(places, max_size=6)):
        piece = memoryview(content)[begin : begin + length]
        for one in (check, wrong):
            one.saw(6 + begin, piece)
    check.require()
    check.require()
    with pytest.raises(BadSource, match="damaged"):
        wrong.require()


def manifest(layout: Layout, content: bytes, media_type: str, diff_id: str) -> None:
    config = layout.blob(json.dumps({"rootfs": {"diff_ids": [diff_id]}}).encode(), CONFIG)
    layer = layout.blob(content, media_type)
    layout.manifests = [layout.blob(json.dumps({"config": config, "layers": [layer]}).encode(), MANIFEST)]


@pytest.mark.parametrize(
    ("kind", "media_type", "says"),
    [
        ("gzip", f"{TAR}+gzip", "the unpacked layer sha256:0000"),
        ("", TAR, "is not packed, yet its diff_id is sha256:0000"),
        ("", f"{TAR}+zstd", "is not zstd, as its media type says"),
    ],
)
def test_a_layer_must_be_what_manifest_and_config_say(
    tmp_path: Path, kind: str, media_type: str, says: str
) -> None:
    layout = Layout()
    manifest(layout, packed(tar(*FILES), kind), media_type, "sha256:" + "0" * 64)
    with pytest.raises(BadSource) as caught:
        names(layout.write(tmp_path / "oci"))
    assert says in str(caught.value)


def unpacked(content: bytes, kind: str, directory: Path) -> bytes:
    read, written = bytearray(), bytearray()
    with ExitStack() as stack:
        found = decompressed(region(content), kind, stack, str(directory), read.extend, written.extend)
        result = found.read(0, found.size)
    assert bytes(written) == result
    assert bytes(read) == content
    return result


@given(st.lists(st.binary(max_size=5000), min_size=1, max_size=4))
def test_gzip_members_behind_each_other_are_one_file(parts: list[bytes]) -> None:
    content = b"".join(packed(part, "gzip") + bytes(len(part) % 3) for part in parts)
    assert unpacked(content, "gzip", Path("/tmp")) == b"".join(parts)


def test_a_little_that_unpacks_to_a_lot_stays_out_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(spool, "write_all", lambda fd, data, at: sizes.append(len(data)))
    with ExitStack() as stack:
        bomb = packed(bytes(64 << 20), "gzip")
        decompressed(region(bomb), "gzip", stack, str(tmp_path), lambda _: None, lambda _: None)
    assert sum(sizes) == 64 << 20
    assert max(sizes) <= 1 << 20


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_packed_data_that_is_cut_off_is_refused(tmp_path: Path, kind: str) -> None:
    content = packed(os.urandom(100_000), kind)
    with pytest.raises(BadSource, match="cut off"):
        unpacked(content[:-10], kind, tmp_path)
    with pytest.raises(BadSource, match="damaged"):
        unpacked(content + b"garbage", kind, tmp_path)


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = packed(b"x", "zstd")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadSource, match="the program zstd is not installed"):
        unpacked(content, "zstd", tmp_path)


def test_a_full_disk_is_said_to_be_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool, "write_all", full)
    with pytest.raises(NoSpace, match=r"below .* No space left on device \(errno 28\)"):
        unpacked(packed(b"x", "gzip"), "gzip", tmp_path)


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\x1f\x8b\x08", "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\x51\x2a\x4d\x18", "zstd"),
        (b"", ""),
        (b"abc", ""),
    ],
)
def test_packing_is_known_by_its_first_bytes(start: bytes, kind: str) -> None:
    assert find_compression(start) == kind
