"""Sparse files in tars: GNU's old header and the three forms of pax records."""

from __future__ import annotations

import tarfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.image.archives import entry, region, tar
from uvmd.image.content import Region, Span
from uvmd.image.errors import BadSource
from uvmd.image.tar_headers import Member, read_members
from uvmd.image.tar_sparse import is_pax_sparse, parse_pax_sparse

END = bytes(1024)


def old_gnu(pairs: list[tuple[int, int]], size: int, data: bytes) -> bytes:
    """An archive with one sparse file as GNU tar 1.12 wrote it."""
    raw = bytearray(512)
    raw[0:1], raw[100:107], raw[124:136], raw[156:157] = b"f", b"0000644", b"%011o\0" % len(data), b"S"
    raw[257:265] = b"ustar  \0"

    def put(area: bytearray, at: int, some: list[tuple[int, int]]) -> None:
        for offset, count in some:
            area[at : at + 24] = b"%011o\0%011o\0" % (offset, count)
            at += 24

    put(raw, 386, pairs[:4])
    raw[482] = len(pairs) > 4
    raw[483:495] = b"%011o\0" % size
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    more = b""
    rest = pairs[4:]
    while rest:
        sector = bytearray(512)
        put(sector, 0, rest[:21])
        rest = rest[21:]
        sector[504] = bool(rest)
        more += bytes(sector)
    return bytes(raw) + more + data + bytes(-len(data) % 512) + END


@st.composite
def maps(draw: st.DrawFn) -> tuple[list[tuple[int, int]], int]:
    pairs, at = [], 0
    for _ in range(draw(st.integers(0, 60))):
        at += draw(st.integers(0, 10_000))
        count = draw(st.integers(1, 300))
        pairs.append((at, count))
        at += count
    return pairs, at + draw(st.integers(0, 5000))


def contents(archive: bytes, member: Member) -> bytes:
    data = bytearray(member.size)
    for span in member.spans:
        data[span.logical : span.end] = archive[span.at : span.at + span.length]
    return bytes(data)


def expected(pairs: list[tuple[int, int]], size: int, stored: bytes) -> bytes:
    data, at = bytearray(size), 0
    for offset, count in pairs:
        data[offset : offset + count] = stored[at : at + count]
        at += count
    return bytes(data)


def stored_for(pairs: list[tuple[int, int]]) -> bytes:
    return bytes(index % 255 + 1 for index in range(sum(count for _, count in pairs)))


@given(maps())
def test_the_old_header_is_read_with_its_further_sectors(found: tuple[list[tuple[int, int]], int]) -> None:
    pairs, size = found
    archive = old_gnu(pairs, size, stored_for(pairs))
    (member,) = read_members(region(archive))
    assert contents(archive, member) == expected(pairs, size, stored_for(pairs))


@given(found=maps(), version=st.sampled_from(["0.1", "1.0"]))
def test_pax_records_say_the_same(found: tuple[list[tuple[int, int]], int], version: str) -> None:
    pairs, size = found
    stored, records = stored_for(pairs), {"GNU.sparse.size": str(size), "GNU.sparse.name": "real"}
    numbers = [number for pair in pairs for number in pair]
    if version == "0.1":
        records["GNU.sparse.map"] = ",".join(map(str, numbers)) if pairs else ""
        if not pairs:
            return
    else:
        records |= {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(size)}
        lines = "".join(f"{number}\n" for number in [len(pairs), *numbers]).encode()
        stored = lines + bytes(-len(lines) % 512) + stored
    archive = tar(entry("placeholder", stored, pax_headers=records))
    (member,) = read_members(region(archive))
    assert member.name == b"real"
    assert contents(archive, member) == expected(pairs, size, stored_for(pairs))


def test_the_form_with_repeated_keys_is_read() -> None:
    records = {b"GNU.sparse.size": b"100"}
    assert is_pax_sparse(records)
    size, spans = parse_pax_sparse(region(bytes(20)), records, [b"10", b"5", b"50", b"7"], 3, 12, "f")
    assert (size, spans) == (100, (Span(10, 5, 3), Span(50, 7, 8)))


def parse(records: dict[bytes, bytes], data: bytes = b"") -> Any:
    return parse_pax_sparse(
        Region(region(data).fd, 0, len(data), "t"), records, [], 0, len(data), "entry 'f'"
    )


@pytest.mark.parametrize(
    ("records", "data", "says"),
    [
        ({b"GNU.sparse.size": b"10", b"GNU.sparse.map": b"0,5,3,2"}, bytes(7), "leaves the file or overlaps"),
        ({b"GNU.sparse.size": b"10", b"GNU.sparse.map": b"8,5"}, bytes(5), "leaves the file or overlaps"),
        ({b"GNU.sparse.size": b"10", b"GNU.sparse.map": b"0,5"}, bytes(4), "leaves the file or overlaps"),
        ({b"GNU.sparse.size": b"10", b"GNU.sparse.map": b"0"}, b"", "odd number"),
        ({b"GNU.sparse.size": b"-1", b"GNU.sparse.map": b"0,1"}, b"", "cannot be read"),
        ({b"GNU.sparse.map": b"0,1"}, b"", "cannot be read"),
        ({b"GNU.sparse.major": b"1", b"GNU.sparse.realsize": b"9"}, bytes(512), "does not end"),
        ({b"GNU.sparse.major": b"1", b"GNU.sparse.realsize": b"9"}, b"9999999\n".ljust(512), "more than"),
        ({b"GNU.sparse.major": b"1", b"GNU.sparse.realsize": b"9"}, b"2\n1\n".ljust(512), "does not end"),
        ({b"GNU.sparse.major": b"1", b"GNU.sparse.realsize": b"9"}, b"x\n".ljust(512), "cannot be read"),
        ({b"GNU.sparse.major": b"1", b"GNU.sparse.realsize": b"9"}, b"1\n" + bytes(4000), "does not end"),
    ],
)
def test_maps_that_lie_are_refused(records: dict[bytes, bytes], data: bytes, says: str) -> None:
    with pytest.raises(BadSource, match=says):
        parse(records, data)


def test_a_sparse_file_beyond_what_ext4_holds_is_refused() -> None:
    records = {"GNU.sparse.size": str(1 << 60), "GNU.sparse.map": "0,1", "GNU.sparse.name": "big"}
    with pytest.raises(BadSource, match=f"'big' claims {1 << 60} bytes"):
        list(read_members(region(tar(entry("p", b"x", pax_headers=records)))))


def test_the_standard_library_agrees_on_an_old_header() -> None:
    pairs = [(0, 10), (5000, 20)]
    archive = old_gnu(pairs, 9000, stored_for(pairs))
    found = tarfile.TarInfo.frombuf(archive[:512], "utf-8", "strict")
    assert found.type == tarfile.GNUTYPE_SPARSE
