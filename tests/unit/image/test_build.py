"""Whole images: read back, compared byte by byte, and computed without being written."""

from __future__ import annotations

import copy
import os
import random
import stat
import struct
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.image.archives import Entry, directory, entry, layer, link, region, symlink, tar
from unit.image.reader import Reader, facts, read_image
from uvmd.image import output
from uvmd.image.build import build_image
from uvmd.image.content import BLOCK, ArchiveContent, Span
from uvmd.image.directory import read_directory
from uvmd.image.errors import BadSource, ImageError, NoSpace
from uvmd.image.inspect import verify
from uvmd.image.layers import as_overlay
from uvmd.image.tars import read_tar
from uvmd.image.tree import Inode, Tree

CAPABILITY = {"SCHILY.xattr.security.capability": "\x01\0\0\x02\0\x04" + "\0" * 14}
ENTRIES: list[Entry] = [
    directory("./", mode=0o755, mtime=5),
    directory("usr", uid=1, gid=2, mtime=1_700_000_000),
    entry("usr/tool", b"\x7fELF" * 5000, mode=0o4755, mtime=9, pax_headers=CAPABILITY),
    link("usr/same", "usr/tool"),
    symlink("short", "usr/tool"),
    symlink("long", "/".join(["up"] * 40)),
    entry("usr/.wh.gone"),
    entry("var/.wh..wh..opq"),
    entry("empty"),
    entry("big-id", b"x", uid=3_000_000_000, gid=70_000, mtime=5_000_000_000),
    entry("holes", b"a" + bytes(40_000) + b"b"),
    entry("null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3),
    entry("disk", kind=tarfile.BLKTYPE, devmajor=259, devminor=70_000),
    entry("pipe", kind=tarfile.FIFOTYPE),
    *(entry(f"many/{'n' * 100}{number}") for number in range(100)),
]


def tree_of(*entries: Entry) -> Tree:
    return as_overlay(layer(*entries))


def test_an_image_holds_what_the_tar_held(tmp_path: Path) -> None:
    path = tmp_path / "x.img"
    image = build_image(tree_of(*ENTRIES), path)
    files = read_image(path)
    assert image.files == len({file.number for file in files.values()})
    tool = files[b"/usr/tool"]
    assert (tool.data, tool.links, tool.mode) == (b"\x7fELF" * 5000, 2, stat.S_IFREG | 0o4755)
    assert files[b"/usr/same"].number == tool.number
    assert tool.xattrs == {b"security.capability": b"\x01\0\0\x02\0\x04" + bytes(14)}
    assert files[b"/short"].data == b"usr/tool"
    assert files[b"/long"].data == b"/".join([b"up"] * 40)
    assert (files[b"/usr/gone"].mode, files[b"/usr/gone"].device) == (stat.S_IFCHR, (0, 0))
    assert files[b"/var"].xattrs == {b"trusted.overlay.opaque": b"y"}
    assert (files[b"/empty"].size, files[b"/empty"].sectors) == (0, 0)
    big = files[b"/big-id"]
    assert (big.uid, big.gid, big.mtime) == (3_000_000_000, 70_000, 5_000_000_000)
    holes = files[b"/holes"]
    assert holes.data == b"a" + bytes(40_000) + b"b"
    assert holes.sectors == 2 * BLOCK // 512
    assert (files[b"/null"].device, files[b"/disk"].device) == ((1, 3), (259, 70_000))
    assert stat.S_ISFIFO(files[b"/pipe"].mode)
    assert (files[b""].links, files[b"/usr"].links) == (5, 2)
    assert sum(name.startswith(b"/many/") for name in files) == 100


@given(seed=st.integers(0, 1 << 30), format=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_neither_order_nor_format_of_a_tar_changes_a_byte(
    seed: int, format: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # GNU's format has no place for attributes.
    plain = [(copy.copy(info), data) for info, data in ENTRIES]
    for info, _ in plain:
        info.pax_headers = {}
    shuffled = random.Random(seed).sample(plain, len(plain))
    folder = tmp_path_factory.mktemp("order")
    one = build_image(tree_of(*plain), folder / "one")
    other = build_image(as_overlay(read_tar(region(tar(*shuffled, format=format)))), folder / "other")
    assert one == other
    assert (folder / "one").read_bytes() == (folder / "other").read_bytes()


def test_this_very_tree_has_this_very_root_hash() -> None:
    # Policies carry root hashes: a change here makes every image ever measured another one.
    assert (
        build_image(tree_of(*ENTRIES), None).root_hash
        == "995505614ee4aa7cc83ef6d8a09f6aa113b95ff26b6de7b53ca9f2215a475916"
    )


def test_a_hash_is_had_without_an_image(tmp_path: Path) -> None:
    assert build_image(tree_of(*ENTRIES), None) == build_image(tree_of(*ENTRIES), tmp_path / "x")


def test_an_image_ends_with_a_tree_that_matches(tmp_path: Path) -> None:
    path = tmp_path / "x.img"
    image = build_image(tree_of(*ENTRIES), path)
    assert path.stat().st_size == image.size
    found = verify(path, root_hash=image.root_hash)
    assert (found.root_hash, found.ext4_bytes, found.is_ours) == (image.root_hash, image.ext4_bytes, True)
    assert found.uuid.replace("-", "") == image.uuid


def test_a_vhd_is_the_same_image_with_a_footer(tmp_path: Path) -> None:
    plain = build_image(tree_of(*ENTRIES), tmp_path / "x.img")
    vhd = build_image(tree_of(*ENTRIES), tmp_path / "x.vhd", with_vhd_footer=True)
    assert (vhd.root_hash, vhd.size) == (plain.root_hash, plain.size + 512)
    assert (tmp_path / "x.vhd").read_bytes()[:-512] == (tmp_path / "x.img").read_bytes()
    assert verify(tmp_path / "x.vhd").vhd_footer


def test_a_tree_with_nothing_in_it_is_an_image_too(tmp_path: Path) -> None:
    tree = Tree()
    tree.finish()
    build_image(tree, tmp_path / "x")
    assert list(read_image(tmp_path / "x")) == [b""]


def test_every_block_belongs_to_one_thing_only(tmp_path: Path) -> None:
    build_image(tree_of(*ENTRIES), tmp_path / "x")
    reader = Reader((tmp_path / "x").read_bytes())
    owned = {number for number in range(reader.blocks) if number * BLOCK < len(reader.image)}
    used = [
        block
        for file in {f.number: f for f in reader.walk().values()}.values()
        for block in _blocks(reader, file.number)
    ]
    assert len(used) == len(set(used))
    assert set(used) <= owned


def _blocks(reader: Reader, number: int) -> list[int]:
    group, index = divmod(number - 1, reader.per_group)
    (table,) = struct.unpack_from("<I", reader.image, BLOCK + group * 32 + 8)
    raw = reader.image[table * BLOCK + index * 256 :][:256]
    if not struct.unpack_from("<I", raw, 32)[0] & 0x80000:
        return []
    return [physical + at for _, length, physical in reader._extents(raw[40:100]) for at in range(length)]


def test_a_file_in_many_pieces_has_a_tree_of_extents(tmp_path: Path) -> None:
    blocks = 3000
    data = b"".join(
        bytes([number % 250 + 1]) * BLOCK if number % 2 else bytes(BLOCK) for number in range(blocks)
    )
    build_image(tree_of(entry("f", data)), tmp_path / "x")
    file = read_image(tmp_path / "x")[b"/f"]
    assert file.data == data
    # 1500 extents: five leaves below one index.
    assert file.sectors == (blocks // 2 + 5 + 1) * BLOCK // 512


def test_a_terabyte_of_nothing_is_a_small_image(tmp_path: Path) -> None:
    tree = Tree()
    source = region(b"end")
    spans = (Span((1 << 40) - 3, 3, 0),)
    tree.put((b"f",), Inode(stat.S_IFREG | 0o644, content=ArchiveContent(source, 1 << 40, spans)))
    image = build_image(tree, tmp_path / "x")
    assert image.size < 100_000


def test_attributes_beyond_the_inode_are_kept_in_a_block(tmp_path: Path) -> None:
    records = {"SCHILY.xattr.user.long": "v" * 2000, "SCHILY.xattr.user.short": "w"}
    build_image(tree_of(entry("f", b"x", pax_headers=records)), tmp_path / "x")
    file = read_image(tmp_path / "x")[b"/f"]
    assert file.xattrs == {b"user.long": b"v" * 2000, b"user.short": b"w"}
    assert file.sectors == 2 * BLOCK // 512


def test_directories_beyond_65000_stop_being_counted(tmp_path: Path) -> None:
    tree = Tree()
    for number in range(65_100):
        tree.put((b"%d" % number,), Inode(stat.S_IFDIR | 0o755))
    build_image(tree, tmp_path / "x")
    assert Reader((tmp_path / "x").read_bytes()).inode(2).links == 1


def test_too_many_hard_links_are_refused() -> None:
    tree = Tree()
    file = Inode(stat.S_IFREG | 0o644)
    for number in range(65_001):
        tree.put((b"%d" % number,), file)
    with pytest.raises(BadSource, match="more than 65000 hard links"):
        build_image(tree, None)


def test_progress_names_its_steps_and_ends_with_the_whole(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    build_image(tree_of(*ENTRIES), tmp_path / "x", progress=lambda *one: told.append(one))
    assert [step for step, _, _ in told] == ["hash", "write"]
    assert all(done == total for _, done, total in told)


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.img"
    path.write_bytes(b"before")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(output.os, "pwrite", fail)
    with pytest.raises(NoSpace, match=r"cannot write .*x.img: No space left on device"):
        build_image(tree_of(*ENTRIES), path)
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("x.img", b"before")]


def test_too_little_room_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        f_bavail, f_frsize = 3, 4096

    monkeypatch.setattr(output.os, "fstatvfs", lambda _: Full)
    with pytest.raises(NoSpace, match="bytes, and 12288 are free there"):
        build_image(tree_of(*ENTRIES), tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_only_a_files_name_is_written_to(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is not a regular file"):
        build_image(tree_of(entry("f")), tmp_path)
    with pytest.raises(ImageError, match="No such file or directory"):
        build_image(tree_of(entry("f")), tmp_path / "none" / "x")


def test_an_image_is_as_public_as_any_new_file(tmp_path: Path) -> None:
    build_image(tree_of(entry("f")), tmp_path / "x")
    (tmp_path / "y").touch()
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "y").stat().st_mode


def test_a_directory_and_its_tar_give_one_image(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "d").mkdir(parents=True)
    (root / "d" / "f").write_bytes(b"data")
    (root / "s").symlink_to("d/f")
    os.link(root / "d" / "f", root / "h")
    with tarfile.open(tmp_path / "t.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(root, ".")
    fd = os.open(root, os.O_RDONLY)
    from_directory = build_image(read_directory(fd), tmp_path / "one")
    os.close(fd)
    from_tar = build_image(tree_of_file(tmp_path / "t.tar"), tmp_path / "two")
    assert facts(read_image(tmp_path / "one")) == facts(read_image(tmp_path / "two"))
    assert from_directory == from_tar


def tree_of_file(path: Path) -> Tree:
    return as_overlay(read_tar(region(path.read_bytes())))
