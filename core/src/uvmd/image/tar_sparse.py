"""Sparse files in tar archives: GNU's old header, and its three ways in pax records."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from uvmd.image.content import Region, Span
from uvmd.image.errors import BadSource

_SECTOR: Final = 512
_ENTRY: Final = 24
#: More than a line of a map can have, with what pads its last sector.
_LINE: Final = 24 + _SECTOR
#: The map is kept in memory; no honest file has a million islands of data.
_MAX_SPANS: Final = 1 << 20
_SIZES: Final = (b"GNU.sparse.realsize", b"GNU.sparse.size")


def is_pax_sparse(records: Mapping[bytes, bytes]) -> bool:
    """Tell whether pax records describe a sparse file."""
    return b"GNU.sparse.major" in records or b"GNU.sparse.size" in records or b"GNU.sparse.map" in records


def parse_gnu_sparse(
    archive: Region, header: bytes, data: int, length: int, what: str
) -> tuple[int, tuple[Span, ...], int]:
    """Read the old format: return the file's size, its spans, and the bytes of further headers.

    Raises:
        BadSource: the map is not one.
    """
    pairs = _old_entries(header[386:482])
    more, skipped = header[482:483], 0
    while more not in (b"\0", b"0"):
        sector = archive.read(data + skipped, _SECTOR)
        pairs += _old_entries(sector[:504])
        more = sector[504:505]
        skipped += _SECTOR
        if len(pairs) > _MAX_SPANS:
            raise _too_many(what)
    size = _number(_octal(header[483:495]), what)
    return size, _spans(pairs, size, data + skipped, length, what), skipped


def parse_pax_sparse(
    archive: Region,
    records: Mapping[bytes, bytes],
    sparse_map: Sequence[bytes],
    data: int,
    length: int,
    what: str,
) -> tuple[int, tuple[Span, ...]]:
    """Read format 0.0, 0.1 or 1.0: return the file's size and its spans.

    Args:
        sparse_map: the values of format 0.0's repeated keys, in their order.
    """
    size = _number(next((_decimal(records[key]) for key in _SIZES if key in records), None), what)
    if b"GNU.sparse.major" in records:
        numbers, used = _map_before_data(archive, data, length, what)
        return size, _spans(_paired(numbers, what), size, data + used, length - used, what)
    texts = records[b"GNU.sparse.map"].split(b",") if b"GNU.sparse.map" in records else sparse_map
    found = [_number(_decimal(text), what) for text in texts]
    return size, _spans(_paired(found, what), size, data, length, what)


def _old_entries(area: bytes) -> list[tuple[int | None, int | None]]:
    found: list[tuple[int | None, int | None]] = []
    for at in range(0, len(area), _ENTRY):
        if not area[at]:
            break
        found.append((_octal(area[at : at + 12]), _octal(area[at + 12 : at + 24])))
    return found


def _map_before_data(archive: Region, data: int, length: int, what: str) -> tuple[list[int], int]:
    """Format 1.0: lines of decimal numbers before the data, the first says how many pairs."""
    text, used, lines, wanted = bytearray(), 0, 0, 1
    while lines < wanted:
        if used + _SECTOR > length:
            raise BadSource(f"{what}: its sparse map does not end")
        sector = archive.read(data + used, _SECTOR)
        text += sector
        used, lines = used + _SECTOR, lines + sector.count(b"\n")
        if wanted == 1 and lines:
            count = _number(_decimal(bytes(text).split(b"\n", 1)[0]), what)
            if count > _MAX_SPANS:
                raise _too_many(what)
            wanted = 1 + 2 * count
        if len(text) > _LINE * wanted:
            raise BadSource(f"{what}: its sparse map does not end")
    return [_number(_decimal(line), what) for line in bytes(text).split(b"\n")[1:wanted]], used


def _paired(numbers: Sequence[int], what: str) -> list[tuple[int | None, int | None]]:
    if len(numbers) % 2:
        raise BadSource(f"{what}: its sparse map has an odd number of entries")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _spans(
    pairs: Sequence[tuple[int | None, int | None]], size: int, data: int, length: int, what: str
) -> tuple[Span, ...]:
    spans, at, behind = [], data, 0
    for offset, count in pairs:
        offset, count = _number(offset, what), _number(count, what)
        if offset < behind or offset + count > size or at + count > data + length:
            raise BadSource(f"{what}: its sparse map leaves the file or overlaps")
        if count:
            spans.append(Span(offset, count, at))
        at, behind = at + count, offset + count
    return tuple(spans)


def _octal(text: bytes) -> int | None:
    if text[:1] == b"\x80":
        return int.from_bytes(text[1:], "big")
    digits = text.split(b"\0", 1)[0].strip(b" ")
    return int(digits, 8) if re.fullmatch(rb"[0-7]+", digits) else None


def _decimal(text: bytes) -> int | None:
    return int(text) if re.fullmatch(rb"\d{1,20}", text) else None


def _number(value: int | None, what: str) -> int:
    if value is None:
        raise BadSource(f"{what}: a number of its sparse map cannot be read")
    return value


def _too_many(what: str) -> BadSource:
    return BadSource(f"{what}: its sparse map has more than {_MAX_SPANS} entries: refused")
