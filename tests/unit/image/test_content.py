"""Windows over files that are sparse in any way."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.image.archives import region
from uvmd.image import content
from uvmd.image.content import BLOCK, FileContent, Region, Span, identity_of, open_unchanged, windows
from uvmd.image.errors import BadSource
from uvmd.image.scan import scan
from uvmd.image.verity import ZERO_DIGEST, digest_of

SOURCE = region(os.urandom(64 * 1024), "source", kept=True)


@dataclass
class Sparse:
    """A made-up file over SOURCE."""

    size: int
    spans: Sequence[Span]
    check: None = None

    @contextmanager
    def opened(self) -> Iterator[int]:
        yield SOURCE.fd

    def flat(self) -> bytes:
        data = bytearray(self.size)
        for span in self.spans:
            data[span.logical : span.logical + span.length] = SOURCE.read(span.at, span.length)
        return bytes(data)


@st.composite
def sparse_files(draw: st.DrawFn) -> Sparse:
    spans, at = [], 0
    for _ in range(draw(st.integers(0, 6))):
        at += draw(st.sampled_from([0, 1, 100, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK]))
        length = draw(st.sampled_from([1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK]))
        spans.append(Span(at, length, draw(st.integers(0, 30_000))))
        at += length
    return Sparse(at + draw(st.integers(0, 2 * BLOCK)), spans)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "WINDOW_BYTES", 4 * BLOCK)


@given(file=sparse_files())
def test_windows_show_all_data_once_and_in_order(file: Sparse) -> None:
    whole = bytearray(-(-file.size // BLOCK) * BLOCK)
    behind = 0
    for first, window in windows(file, SOURCE.fd):
        assert first >= behind
        assert 0 < len(window) <= 4 * BLOCK
        assert len(window) % BLOCK == 0
        whole[first * BLOCK : first * BLOCK + len(window)] = window
        behind = first + len(window) // BLOCK
    assert bytes(whole[: file.size]) == file.flat()


@given(file=sparse_files())
def test_a_scan_finds_the_blocks_with_data_and_their_digests(file: Sparse) -> None:
    flat = file.flat()
    flat += bytes(-len(flat) % BLOCK)
    blocks = {
        number: digest_of(flat[number * BLOCK : (number + 1) * BLOCK]) for number in range(len(flat) // BLOCK)
    }
    wanted = {number: digest for number, digest in blocks.items() if digest != ZERO_DIGEST}
    told: list[int] = []
    found = scan(file, told.append)
    numbers = [first + index for first, count in found.runs for index in range(count)]
    digests = [found.digests[at : at + 32] for at in range(0, len(found.digests), 32)]
    assert dict(zip(numbers, digests, strict=True)) == wanted
    assert found.blocks == len(wanted)
    assert all(sum(one) < two[0] for one, two in pairwise(found.runs))


def test_blocks_of_zeros_are_holes_even_when_they_are_stored() -> None:
    zeros = region(bytes(5 * BLOCK) + b"x")
    file = content.ArchiveContent(zeros, 5 * BLOCK + 1, (Span(0, 5 * BLOCK + 1, 0),))
    assert scan(file, lambda _: None).runs == ((5, 1),)


def test_a_region_that_is_too_short_says_where() -> None:
    with pytest.raises(BadSource, match=r"a.tar is cut off: 10 bytes are missing at offset 95"):
        region(bytes(100), "a.tar").read(95, 10)


def test_a_region_whose_file_shrank_is_not_read_for_ever() -> None:
    shrunk = region(bytes(100))
    with pytest.raises(BadSource, match="became shorter"):
        Region(shrunk.fd, 50, 100, "x").read(0, 100)
    with pytest.raises(BadSource, match="became shorter"):
        list(windows(content.ArchiveContent(shrunk, 200, (Span(0, 200, 0),)), shrunk.fd))


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"before")
    root = os.open(tmp_path, os.O_RDONLY)
    file = FileContent(root, b"f", 6, (Span(0, 6, 0),), identity_of(path.stat()))
    with pytest.raises(BadSource, match="'f' changed while it was read"), file.opened():
        path.write_bytes(b"behind!")
    with pytest.raises(BadSource, match="'f' changed while it was read"), file.opened():
        pass
    os.close(root)


def test_a_symbolic_link_in_a_files_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "f").symlink_to("secret")
    root = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(BadSource, match="cannot read 'f'"):
        open_unchanged(root, b"f", identity_of((tmp_path / "secret").stat()))
    os.close(root)
