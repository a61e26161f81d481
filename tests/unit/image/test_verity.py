"""Hash trees against the spec's own words, and against a root that veritysetup computed."""

from __future__ import annotations

import hashlib
import os
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from uvmd.image.verity import (
    BLOCK,
    ZERO_DIGEST,
    digest_of,
    encode_superblock,
    level_blocks,
    salted_digest,
    tree_levels,
)
from uvmd.linux.verity import parse_verity_superblock


def test_a_digest_is_of_the_salt_and_then_the_block() -> None:
    block = os.urandom(BLOCK)
    assert digest_of(block) == hashlib.sha256(bytes(32) + block).digest()
    assert salted_digest(b"salt")(block) == hashlib.sha256(b"salt" + block).digest()
    assert hashlib.sha256(bytes(32 + BLOCK)).digest() == ZERO_DIGEST


@given(st.integers(1, 1 << 34))
def test_levels_shrink_to_one_block_on_top(blocks: int) -> None:
    levels = level_blocks(blocks)
    assert levels[0] == 1
    for upper, lower in zip(levels, [*levels[1:], blocks], strict=True):
        assert upper == -(-lower // 128)


@given(st.integers(1, 40_000))
def test_a_tree_has_the_blocks_that_were_planned(count: int) -> None:
    levels = tree_levels(ZERO_DIGEST * count)
    assert [len(level) // BLOCK for level in levels] == level_blocks(count)


def test_each_level_holds_the_digests_of_the_one_below() -> None:
    leaves = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(20_000))
    levels = tree_levels(leaves)
    assert len(levels) == 3
    for upper, lower in pairwise(levels):
        digests = b"".join(digest_of(lower[at : at + BLOCK]) for at in range(0, len(lower), BLOCK))
        assert upper == digests.ljust(len(upper), b"\0")
    assert levels[-1].startswith(leaves)


def test_the_root_is_the_one_that_veritysetup_computes() -> None:
    # veritysetup 2.6.1: format --salt <64 zeros> of 300 blocks, each filled with its number mod 251.
    leaves = b"".join(digest_of(bytes([number % 251]) * BLOCK) for number in range(300))
    root = digest_of(tree_levels(leaves)[0]).hex()
    assert root == "4efc55b8643c585789ae56de1d2815d863adf6b9ab293e43fba4e91f641d02b4"


def test_a_guest_reads_the_superblock_as_it_was_meant() -> None:
    block = encode_superblock(bytes(range(16)), 300)
    assert len(block) == BLOCK
    assert not any(block[512:])
    assert parse_verity_superblock(block, 300 * BLOCK, BLOCK) == (1, "sha256", bytes(32))
