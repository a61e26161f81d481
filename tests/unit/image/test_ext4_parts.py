"""The pieces of ext4, each against the kernel's documents."""

from __future__ import annotations

import stat
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from uvmd.image.content import BLOCK
from uvmd.image.errors import BadImage, BadSource
from uvmd.image.ext4 import directories, extents
from uvmd.image.ext4.inodes import encode_device, encode_inode, encode_time
from uvmd.image.ext4.plan import _geometry
from uvmd.image.ext4.superblock import (
    Geometry,
    encode_bitmap,
    encode_descriptor,
    encode_superblock,
    parse_superblock,
)
from uvmd.image.ext4.xattrs import encode_xattrs, is_known


@given(st.lists(st.binary(min_size=1, max_size=255), max_size=300, unique=True))
def test_a_directory_has_the_blocks_that_were_planned(names: list[bytes]) -> None:
    names.sort()
    entries = [(name, 11 + number, stat.S_IFREG) for number, name in enumerate(names)]
    encoded = directories.encode_directory(2, 2, entries)
    assert len(encoded) == BLOCK * directories.blocks_needed(names)
    found, at = [], 0
    while at < len(encoded):
        number, length, name_length, kind = struct.unpack_from("<IHBB", encoded, at)
        # No entry crosses a block.
        assert at // BLOCK == (at + length - 1) // BLOCK
        found.append((encoded[at + 8 : at + 8 + name_length], number, kind))
        at += length
    assert found[:2] == [(b".", 2, 2), (b"..", 2, 2)]
    assert found[2:] == [(name, number, 1) for name, number, _ in entries]


runs = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 70_000)), max_size=6)


@given(runs)
def test_no_extent_is_longer_than_one_may_be(pairs: list[tuple[int, int]]) -> None:
    given_blocks, at = [], 0
    for gap, count in pairs:
        given_blocks.append((at + gap, count))
        at += gap + count
    pieces = extents.split(given_blocks)
    assert all(0 < count <= 32768 for _, count in pieces)
    assert sum(count for _, count in pieces) == sum(count for _, count in given_blocks)


@given(st.integers(0, 2000))
@example(4)
@example(5)
@example(340 * 4)
@example(340 * 4 + 1)
def test_an_extent_tree_leads_to_every_extent(count: int) -> None:
    pieces = [(2 * number, 1) for number in range(count)]
    root, blocks = extents.encode_tree(pieces, physical=5000, tree=100)
    assert len(root) == 60
    assert len(blocks) == extents.blocks_needed(count)

    def leaves(node: bytes) -> list[tuple[int, int]]:
        magic, entries, room, depth = struct.unpack_from("<HHHH", node)
        assert (magic, entries <= room) == (0xF30A, True)
        found: list[tuple[int, int]] = []
        for at in range(12, 12 + 12 * entries, 12):
            if depth:
                first, low = struct.unpack_from("<II", node, at)
                below = leaves(blocks[low - 100])
                assert below[0][0] == first
                found += below
            else:
                first, length, _, low = struct.unpack_from("<IHHI", node, at)
                assert length == 1
                found.append((first, low))
        return found

    assert leaves(root) == [(2 * number, 5000 + number) for number in range(count)]


@pytest.mark.parametrize(
    ("seconds", "encoded"),
    [
        (0, (0, 0)),
        (-1, (0xFFFFFFFF, 0)),
        (-(1 << 31), (0x80000000, 0)),
        (-(1 << 40), (0x80000000, 0)),
        ((1 << 31) - 1, (0x7FFFFFFF, 0)),
        # The kernel's table in ext4.h: 2038 begins the next epoch.
        (1 << 31, (0x80000000, 1)),
        (0x17FFFFFFF, (0x7FFFFFFF, 1)),
        (0x37FFFFFFF, (0x7FFFFFFF, 3)),
        (1 << 50, (0x7FFFFFFF, 3)),
    ],
)
def test_times_reach_from_1901_to_2446(seconds: int, encoded: tuple[int, int]) -> None:
    assert encode_time(seconds) == encoded


def test_devices_have_the_old_form_while_it_can_hold_them() -> None:
    assert encode_device(1, 3) == struct.pack("<II", 0x103, 0)
    assert encode_device(255, 255) == struct.pack("<II", 0xFFFF, 0)
    assert encode_device(259, 0x12345) == struct.pack("<II", 0, 0x45 | 259 << 8 | 0x123 << 20)
    assert encode_device(0, 0) == bytes(8)


def test_an_inode_keeps_the_high_halves_of_its_numbers() -> None:
    raw = encode_inode(
        mode=stat.S_IFREG | 0o4755,
        uid=0x12345678,
        gid=0x9ABCDEF0,
        size=0x123456789A,
        mtime=1,
        links=3,
        blocks=0x1_0000_0008,
        flags=0x80000,
        block=b"B" * 60,
        xattr_block=77,
        inline_xattrs=b"X" * 96,
    )
    assert len(raw) == 256
    assert struct.unpack_from("<HH", raw) == (0o104755, 0x5678)
    assert struct.unpack_from("<HH", raw, 0x78) == (0x1234, 0x9ABC)
    assert struct.unpack_from("<I", raw, 4) == (0x3456789A,)
    assert struct.unpack_from("<III", raw, 0x68) == (77, 0x12, 0)
    assert struct.unpack_from("<I", raw, 0x1C) == (8,)
    assert struct.unpack_from("<H", raw, 0x74) == (1,)
    assert raw[40:100] == b"B" * 60
    assert raw[160:] == b"X" * 96


def test_small_attributes_stand_in_the_inode_and_need_no_block() -> None:
    encoded = encode_xattrs({b"trusted.overlay.opaque": b"y", b"user.a": b"1"}, "x")
    assert (encoded.block, encoded.inline[:4]) == (b"", b"\0\0\2\xea")
    assert len(encoded.inline) <= 96


def test_attributes_that_do_not_fit_go_to_a_block_sorted_and_sealed() -> None:
    encoded = encode_xattrs({b"user.long": b"v" * 1000, b"user.b": b"w" * 100, b"user.a": b""}, "x")
    assert b"long" not in encoded.inline
    magic, references, blocks, sealed = struct.unpack_from("<IIII", encoded.block)
    assert (magic, references, blocks) == (0xEA020000, 1, 1)
    assert sealed
    # Shorter names come first, then byte order.
    assert encoded.block[32 + 16 : 32 + 17] == b"b"


def test_an_acl_is_stored_without_the_ids_that_mean_nothing() -> None:
    entries = [(0x01, 7, 0xFFFFFFFF), (0x02, 5, 1000), (0x04, 5, 0xFFFFFFFF), (0x10, 7, 0xFFFFFFFF)]
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *one) for one in entries)
    encoded = encode_xattrs({b"system.posix_acl_access": value}, "x")
    stored = struct.pack("<I", 1) + struct.pack("<HH", 1, 7) + struct.pack("<HHI", 2, 5, 1000)
    stored += struct.pack("<HH", 4, 5) + struct.pack("<HH", 0x10, 7)
    assert encoded.inline.endswith(stored)
    with pytest.raises(BadSource, match="the ACL of 'f'"):
        encode_xattrs({b"system.posix_acl_access": b"nonsense"}, "'f'")


@pytest.mark.parametrize(
    ("xattrs", "says"),
    [
        ({b"btrfs.compression": b"zstd"}, "cannot store the attribute 'btrfs.compression' of 'f'"),
        ({b"user.": b""}, "cannot store the attribute 'user.'"),
        ({b"user." + b"n" * 251: b""}, "cannot store"),
        ({b"user.big": bytes(5000)}, "attributes of 'f' need 50"),
    ],
)
def test_attributes_that_ext4_cannot_hold_are_refused(xattrs: dict[bytes, bytes], says: str) -> None:
    with pytest.raises(BadSource) as caught:
        encode_xattrs(xattrs, "'f'")
    assert says in str(caught.value)


def test_only_namespaces_of_ext4_are_known() -> None:
    assert is_known(b"security.capability")
    assert is_known(b"system.posix_acl_default")
    assert not is_known(b"system.nfs4_acl")


@given(used=st.integers(0, 32768), valid=st.integers(0, 32768))
def test_a_bitmap_marks_what_is_used_and_what_does_not_exist(used: int, valid: int) -> None:
    used = min(used, valid)
    bits = encode_bitmap(used, valid)
    assert len(bits) == BLOCK
    number = int.from_bytes(bits, "little")
    assert number & ((1 << valid) - 1) == (1 << used) - 1
    assert number >> valid == (1 << (32768 - valid)) - 1


@given(inodes=st.integers(10, 3_000_000), payload=st.integers(0, 3_000_000))
@example(inodes=10, payload=0)
@example(inodes=10, payload=32768 - 6)
@example(inodes=10, payload=32768 - 5)
@example(inodes=2_000_000, payload=0)
@example(inodes=65_409, payload=0)
def test_every_tree_finds_a_division_into_groups(inodes: int, payload: int) -> None:
    geometry, descriptors = _geometry(inodes, payload)
    assert geometry.inodes >= inodes
    assert geometry.inodes_per_group % 16 == 0
    assert geometry.inodes_per_group <= min(32768, 16 * (geometry.blocks_per_group - 4))
    assert (geometry.groups - 1) * geometry.blocks_per_group < geometry.blocks
    assert geometry.blocks <= geometry.groups * geometry.blocks_per_group
    assert descriptors * BLOCK >= geometry.groups * 32
    overhead = 1 + descriptors + 2 * geometry.groups + geometry.inodes // 16
    assert overhead + payload == geometry.blocks
    assert sum(geometry.blocks_in(group) for group in range(geometry.groups)) == geometry.blocks


def test_more_blocks_than_a_guest_can_count_are_refused() -> None:
    with pytest.raises(BadSource, match=r"2\^32 - 1 are possible"):
        _geometry(10, 1 << 32)


def test_a_superblock_says_read_only_and_nothing_about_the_day() -> None:
    geometry = Geometry(blocks=1000, groups=1, blocks_per_group=32768, inodes_per_group=64)
    raw = encode_superblock(geometry, free_inodes=4, uuid=bytes(range(16)))
    found = parse_superblock(raw)
    assert (found.bytes, found.inodes, found.free_inodes) == (1000 * BLOCK, 64, 4)
    assert (found.read_only, found.journal, found.label) == (True, False, "uvmd-layer")
    assert found.uuid == bytes(range(16))
    # s_mtime, s_wtime, s_lastcheck, s_mkfs_time.
    assert [struct.unpack_from("<I", raw, at)[0] for at in (0x2C, 0x30, 0x40, 0x108)] == [0] * 4


def test_a_descriptor_has_32_bytes() -> None:
    assert struct.unpack("<IIIHHH14x", encode_descriptor(1, 2, 3, 4, 5)) == (1, 2, 3, 0, 4, 5)


@pytest.mark.parametrize(
    ("block", "says"),
    [
        (bytes(100), "failed to read ext4 superblock"),
        (bytes(1024), "not an ext4 file system"),
        (bytes(0x18) + b"\x07".ljust(0x20, b"\0") + b"\x53\xef".ljust(0x400 - 0x38, b"\0"), "1024 << 7"),
    ],
)
def test_what_is_no_superblock_is_said_to_be_none(block: bytes, says: str) -> None:
    with pytest.raises(BadImage, match=says):
        parse_superblock(block)
