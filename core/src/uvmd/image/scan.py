"""The first pass over a file's bytes: which blocks hold something, and their digests.

A digest depends on a block's bytes only, not on where it will lie, so hashing need not wait
for the layout; and blocks of zeros become holes whether or not the source was sparse, so
that a copy of a tree gives the same image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from uvmd.image.content import BLOCK, Content, windows
from uvmd.image.verity import SALT, ZERO_BLOCK


@dataclass(frozen=True, slots=True)
class Scanned:
    """Runs of blocks with data, as (first logical block, count), and the digests in that order."""

    runs: tuple[tuple[int, int], ...] = ()
    digests: bytes = b""

    @property
    def blocks(self) -> int:
        return sum(count for _, count in self.runs)


def scan(content: Content, advance: Callable[[int], None]) -> Scanned:
    """Read a file once; *advance* is told of bytes as they are read.

    Raises:
        BadSource: the file changed, or cannot be read.
    """
    if not content.spans:
        return Scanned()
    runs: list[tuple[int, int]] = []
    digests = bytearray()
    with content.opened() as fd:
        for first, window in windows(content, fd):
            _scan_window(first, window, runs, digests)
            advance(len(window))
    return Scanned(tuple(runs), bytes(digests))


def _scan_window(first: int, window: memoryview, runs: list[tuple[int, int]], digests: bytearray) -> None:
    # A quarter of a million rounds per GiB: names are local, and most blocks are told
    # from zeros by their first byte alone.
    salted = hashlib.sha256(SALT).copy
    begun = -1
    for at in range(0, len(window), BLOCK):
        block = window[at : at + BLOCK]
        if not window[at] and bytes(block) == ZERO_BLOCK:
            if begun >= 0:
                _add_run(runs, first + begun // BLOCK, (at - begun) // BLOCK)
                begun = -1
            continue
        if begun < 0:
            begun = at
        digest = salted()
        digest.update(block)
        digests += digest.digest()
    if begun >= 0:
        _add_run(runs, first + begun // BLOCK, (len(window) - begun) // BLOCK)


def _add_run(runs: list[tuple[int, int]], first: int, count: int) -> None:
    if runs and sum(runs[-1]) == first:
        runs[-1] = (runs[-1][0], runs[-1][1] + count)
    else:
        runs.append((first, count))
