"""Superblocks of layers, and the root digest that is computed from what a host wrote."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.disks import BLOCK, ext4, ext4_superblock, layer, root_digest, verity_superblock
from uvmd.errors import Failed
from uvmd.linux import verity


def read(path: Path, content: bytes) -> verity.VerityInfo:
    path.write_bytes(content)
    return verity.read_info(str(path))


def test_a_layer_is_read_and_its_digest_is_that_of_the_tree_s_top(tmp_path: Path) -> None:
    for blocks in (2, 128, 300):
        data = ext4(blocks)
        info = read(tmp_path / "layer", layer(data))
        assert info == verity.VerityInfo(
            blocks * BLOCK, 1, "sha256", root_digest(data), "00" * 32, BLOCK, True
        )


def test_a_descriptor_is_read_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "layer").write_bytes(layer(ext4()))
    fd = os.open(tmp_path / "layer", os.O_RDONLY)
    try:
        assert verity.read_info(fd).root_digest == root_digest(ext4())
        assert os.lseek(fd, 0, os.SEEK_CUR) >= 0
    finally:
        os.close(fd)


def test_the_table_says_what_was_read() -> None:
    info = verity.VerityInfo(8 << 20, 1, "sha256", "ab" * 32, "00" * 32, BLOCK, True)
    assert verity.table(info, "/dev/sda") == (
        0,
        16384,
        "verity",
        f"1 /dev/sda /dev/sda 4096 4096 2048 2049 sha256 {'ab' * 32} {'00' * 32}",
    )
    assert verity.table(info._replace(salt=""), "/dev/sda").params.endswith(f"{'ab' * 32} -")
    with pytest.raises(ValueError, match="root digest"):
        verity.table(info._replace(root_digest="ab cd"), "/dev/sda")


@pytest.mark.parametrize(("salt", "written"), [(b"", ""), (b"\x01\x02", "0102"), (b"s" * 256, "73" * 256)])
def test_a_salt_of_any_length_is_used(tmp_path: Path, salt: bytes, written: str) -> None:
    info = read(tmp_path / "layer", layer(ext4(), salt))
    assert (info.salt, info.root_digest) == (written, root_digest(ext4(), salt))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"signature": b"veritas\0"}, "invalid dm-verity super-block signature"),
        ({"version": 2}, "version 2, expected 1"),
        ({"hash_type": 0}, "hash type 0, expected 1"),
        ({"algorithm": b"md5"}, "an algorithm that is not sha256"),
        ({"data_block_size": 512}, "data block size 512, expected 4096"),
        ({"hash_block_size": 1024}, "hash block size 1024, expected 4096"),
        ({"data_blocks": 3}, "data blocks 3, expected 4"),
        ({"salt_size": 257}, "salt size 257, at most 256"),
    ],
)
def test_a_superblock_that_says_something_else_is_refused(
    tmp_path: Path, fields: dict[str, int | bytes], text: str
) -> None:
    with pytest.raises(Failed, match=text):
        read(tmp_path / "layer", layer(ext4(), **fields))


@pytest.mark.parametrize(
    ("superblock", "text"),
    [
        (bytes(1024), "not an ext4 file system"),
        (ext4_superblock(4, 7), "the block size is above 64 KiB"),
        (ext4_superblock(4, 2**32 - 1), "the block size is above 64 KiB"),
        (ext4_superblock(0), "the number of blocks is not possible"),
        (ext4_superblock(4, high=1), "without 64bit"),
        (ext4_superblock(4, incompatible=0x80, high=2**31), "not possible|leaves no room"),
        (ext4_superblock(16, 0), "needs ext4 with blocks of 4096 bytes, these have 1024"),
        (ext4_superblock(2**32 - 1), "leaves no room for a hash tree"),
    ],
)
def test_a_file_system_that_cannot_be_is_refused(tmp_path: Path, superblock: bytes, text: str) -> None:
    with pytest.raises(Failed, match=text):
        read(tmp_path / "layer", (bytes(1024) + superblock).ljust(64 * BLOCK, b"\0"))


@pytest.mark.parametrize("length", [0, 512, 2047, BLOCK * 4, BLOCK * 5, BLOCK * 6 - 1])
def test_a_layer_that_is_cut_short_is_refused(tmp_path: Path, length: int) -> None:
    with pytest.raises(Failed, match=r"failed to read|no room"):
        read(tmp_path / "layer", layer(ext4())[:length])


def test_a_path_that_cannot_be_opened_is_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="no such file or directory"):
        verity.read_info(str(tmp_path / "nothing"))


@given(st.binary(max_size=1100))
def test_any_bytes_are_a_superblock_or_a_clear_refusal(block: bytes) -> None:
    try:
        size, length = verity.parse_ext4_superblock(block)
        assert length % size == 0
    except Failed:
        pass


@given(st.integers(0, 2**32 - 1), st.integers(0, 8), st.integers(0, 2**32 - 1), st.sampled_from([0, 0x80]))
def test_a_size_is_never_out_of_range(low: int, log: int, high: int, features: int) -> None:
    block = ext4_superblock(low, log, incompatible=features, high=high)
    try:
        size, length = verity.parse_ext4_superblock(block)
    except Failed:
        return
    assert 1024 <= size <= 65536
    assert 0 < length < 1 << 62
    assert (high == 0) or features


@given(st.binary(min_size=512, max_size=600), st.integers(1, 2**40))
def test_any_bytes_behind_a_file_system_are_refused_or_what_we_ask_of_the_kernel(
    block: bytes, blocks: int
) -> None:
    with pytest.raises(Failed):
        verity.parse_verity_superblock(block, blocks * BLOCK, BLOCK)


@given(st.integers(1, 2**40), st.binary(max_size=256))
def test_what_is_written_as_a_host_writes_it_is_read_back(blocks: int, salt: bytes) -> None:
    found = verity.parse_verity_superblock(verity_superblock(blocks, salt), blocks * BLOCK, BLOCK)
    assert found == (1, "sha256", salt)
