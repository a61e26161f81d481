"""Looking at images, whole and damaged ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unit.image.archives import entry, layer
from uvmd.image.build import Image, build_image
from uvmd.image.content import BLOCK
from uvmd.image.errors import BadImage
from uvmd.image.inspect import dm_table, read_info, verify
from uvmd.image.layers import as_overlay


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.img"


@pytest.fixture
def image(path: Path) -> Image:
    return build_image(as_overlay(layer(entry("f", os.urandom(200 * BLOCK)))), path)


def spoil(path: Path, at: int) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        (old,) = file.read(1)
        file.seek(at)
        file.write(bytes([old ^ 1]))


def test_the_facts_of_an_image_are_those_of_its_making(path: Path, image: Image) -> None:
    info = read_info(path)
    assert (info.root_hash, info.ext4_bytes, info.size) == (image.root_hash, image.ext4_bytes, image.size)
    assert (info.label, info.is_ours, info.read_only, info.journal) == ("uvmd-layer", True, True, False)
    assert (info.salt, info.algorithm, info.block_size) == ("0" * 64, "sha256", 4096)
    assert info.tree_bytes == image.size - image.ext4_bytes - BLOCK
    assert not info.vhd_footer


def test_the_table_is_what_the_kernel_takes(path: Path, image: Image) -> None:
    blocks = image.ext4_bytes // BLOCK
    assert dm_table(path, "/dev/sda") == (
        f"0 {blocks * 8} verity 1 /dev/sda /dev/sda 4096 4096 {blocks} {blocks + 1} sha256"
        f" {image.root_hash} {'0' * 64}"
    )


def test_every_block_is_checked(path: Path, image: Image) -> None:
    told: list[int] = []
    verify(path, root_hash=image.root_hash.upper(), progress=lambda _, done, __: told.append(done))
    assert told[-1] == image.ext4_bytes


def test_a_flipped_bit_in_the_data_is_found_and_named(path: Path, image: Image) -> None:
    for block in (7, 100, 130, 150):
        spoil(path, block * BLOCK + 5)
    with pytest.raises(BadImage, match=r"do not match the hash tree .*: 7, 100, 130 and 1 more"):
        verify(path)


def test_a_flipped_bit_in_the_tree_is_found_and_named(path: Path, image: Image) -> None:
    spoil(path, image.ext4_bytes + 2 * BLOCK + 5)
    with pytest.raises(BadImage, match="block 0 of level 1 of the hash tree"):
        verify(path)


def test_a_changed_root_is_told_only_by_the_one_who_knows_it(path: Path, image: Image) -> None:
    other = "0" * 64
    with pytest.raises(BadImage, match=f"has the root hash {image.root_hash}, and not {other}"):
        verify(path, root_hash=other)


@pytest.mark.parametrize("length", [BLOCK, 3 * BLOCK])
def test_an_image_that_is_cut_off_says_so(path: Path, image: Image, length: int) -> None:
    os.truncate(path, image.ext4_bytes + length)
    with pytest.raises(BadImage, match=r"room for a hash tree|is cut off"):
        verify(path)


def test_a_filesystem_alone_is_described_with_what_it_lacks(path: Path, image: Image) -> None:
    os.truncate(path, image.ext4_bytes)
    info = read_info(path)
    assert (info.root_hash, info.tree_bytes) == ("", 0)
    assert "hash tree" in info.why_no_tree
    with pytest.raises(BadImage, match="no room for a hash tree"):
        dm_table(path, "x")


def test_other_files_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(8192))
    for look in (read_info, verify):
        with pytest.raises(BadImage, match="not an ext4 file system"):
            look(tmp_path / "x")
    with pytest.raises(BadImage, match=r"cannot open .*No such file"):
        read_info(tmp_path / "none")
