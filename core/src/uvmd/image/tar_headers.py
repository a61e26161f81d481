"""Tar archives, as far as their headers go: ustar, pax, GNU's long names and sparse files.

Ours and not the standard library's: that one ends quietly at a damaged header, reads
headers of any size into memory, and (before 3.11.14) runs for ever on a negative size. Here every
number is checked before it is used, and whatever is odd is an error that names the offset.
Reference: pax(1), and the GNU tar manual's chapter on its formats.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from uvmd.image.content import MAX_FILE_BYTES, Region, Span
from uvmd.image.errors import BadSource
from uvmd.image.tar_sparse import is_pax_sparse, parse_gnu_sparse, parse_pax_sparse
from uvmd.image.tree import show

SECTOR: Final = 512
_ZEROS: Final = bytes(SECTOR)
#: Long names, and pax records with attributes: no honest one comes near.
_MAX_EXTENDED_BYTES: Final = 4 << 20
_MTIME: Final = re.compile(rb"(-?\d{1,12})(?:\.(\d*))?")
_RECORD: Final = re.compile(rb"(\d{1,10}) ")
_FARTHEST_S: Final = 10**12
_XATTR: Final = b"SCHILY.xattr."


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of an archive, its extended headers applied."""

    name: bytes
    #: The type flag: ``0`` file, ``1`` hard link, ``2`` symbolic link, ``3`` and ``4`` devices, ...
    kind: bytes
    mode: int
    uid: int
    gid: int
    #: Seconds, rounded down.
    mtime: int
    #: The file's length; with *spans* of data that may be shorter.
    size: int
    spans: tuple[Span, ...]
    target: bytes
    device: tuple[int, int]
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    has_text_acl: bool = False


@dataclass(slots=True)
class _Extended:
    """What extended headers say about the next member, and what holds for all that follow."""

    common: dict[bytes, bytes] = field(default_factory=dict)
    records: dict[bytes, bytes] = field(default_factory=dict)
    sparse_map: list[bytes] = field(default_factory=list)
    long_name: bytes = b""
    long_target: bytes = b""


def read_members(archive: Region, *, sealed: bool = False) -> Iterator[Member]:
    """Yield the members in their order.

    Args:
        sealed: the archive's digest is checked, so it may lack the mark at its end; without
            one, a copy that was cut off between two members cannot be told from a whole.

    Raises:
        BadSource: it is no tar, is damaged, or is cut off.
    """
    at, extended = 0, _Extended()
    while True:
        if at + SECTOR > archive.size:
            if sealed and at == archive.size:
                return
            raise BadSource(f"{archive.name} is cut off: {archive.size} bytes, and no end mark of tar")
        header = archive.read(at, SECTOR)
        if header == _ZEROS:
            return
        _require_checksum(archive, header, at)
        kind = header[156:157]
        length = _length(archive, header, at, extended)
        data = at + SECTOR
        if kind in (b"x", b"X", b"g", b"L", b"K"):
            _extend(extended, kind, _read_extended(archive, data, length, at), archive, at)
            at = data + _padded(length)
            continue
        if kind in (b"V", b"M", b"N", b"D"):
            if kind != b"V":
                raise BadSource(f"{archive.name}: GNU tar's {kind!r} entries (volumes, dumps) at byte {at}")
            at, extended = data + _padded(length), _Extended(extended.common)
            continue
        member, after = _member(archive, header, at, data, length, extended)
        yield member
        at, extended = after, _Extended(extended.common)


def _padded(length: int) -> int:
    return -(-length // SECTOR) * SECTOR


def _require_checksum(archive: Region, header: bytes, at: int) -> None:
    claimed = parse_number(header[148:156])
    blank = header[:148] + b" " * 8 + header[156:]
    # Some old tars summed signed bytes.
    if claimed != sum(blank) and claimed != sum(blank) - 256 * sum(byte > 127 for byte in blank):
        what = "is not a tar archive" if at == 0 else f"is damaged: no tar header at byte {at}"
        raise BadSource(f"{archive.name} {what} (wrong checksum)")


def parse_number(text: bytes) -> int | None:
    """Read a number of a header: octal text, or GNU's base 256; None when it is neither."""
    if text[:1] in (b"\x80", b"\xff"):
        return int.from_bytes(text[1:], "big") - (1 << 8 * (len(text) - 1) if text[0] == 0xFF else 0)
    digits = text.split(b"\0", 1)[0].strip(b" ")
    if not digits:
        return 0
    if not re.fullmatch(rb"[0-7]+", digits):
        return None
    return int(digits, 8)


def _length(archive: Region, header: bytes, at: int, extended: _Extended) -> int:
    """Return how many bytes of data follow the header in the archive."""
    text = extended.records.get(b"size", extended.common.get(b"size"))
    if header[156:157] in (b"x", b"X", b"g", b"L", b"K"):
        text = None
    length = parse_number(header[124:136]) if text is None else _decimal(text)
    if length is None or length < 0:
        raise BadSource(f"{archive.name}: the size of the entry at byte {at} is not a number that can be")
    # These may carry a size and have no data.
    if header[156:157] in b"123456":
        return 0
    if length > archive.size - at - SECTOR:
        raise BadSource(
            f"{archive.name} is cut off: the entry at byte {at} has {length} bytes,"
            f" and {max(archive.size - at - SECTOR, 0)} follow"
        )
    return length


def _decimal(text: bytes) -> int | None:
    return int(text) if re.fullmatch(rb"\d{1,20}", text) else None


def _read_extended(archive: Region, data: int, length: int, at: int) -> bytes:
    if length > _MAX_EXTENDED_BYTES:
        raise BadSource(f"{archive.name}: an extended header of {length} bytes at byte {at}: refused")
    return archive.read(data, length)


def _extend(extended: _Extended, kind: bytes, content: bytes, archive: Region, at: int) -> None:
    if kind == b"L":
        extended.long_name = content.split(b"\0", 1)[0]
    elif kind == b"K":
        extended.long_target = content.split(b"\0", 1)[0]
    else:
        for key, value in parse_records(content, f"{archive.name}, pax header at byte {at}"):
            if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
                extended.sparse_map.append(value)
            (extended.common if kind == b"g" else extended.records)[key] = value


def parse_records(content: bytes, what: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield a pax header's records (``LENGTH KEY=VALUE\\n``); values may hold any byte.

    Raises:
        BadSource: a record's length leads astray.
    """
    at = 0
    while at < len(content) and content[at] != 0:
        found = _RECORD.match(content, at)
        end = at + int(found[1]) if found else 0
        if not found or not found.end() < end <= len(content) or content[end - 1] != 0x0A:
            raise BadSource(f"{what}: a record's length is wrong")
        key, equals, value = content[found.end() : end - 1].partition(b"=")
        if not equals or not key:
            raise BadSource(f"{what}: a record without a key")
        yield key, value
        at = end


def _member(
    archive: Region, header: bytes, at: int, data: int, length: int, extended: _Extended
) -> tuple[Member, int]:
    records = {**extended.common, **extended.records}
    name = (
        records.get(b"GNU.sparse.name") or records.get(b"path") or extended.long_name or _short_name(header)
    )
    what = f"entry {show(name)}"
    kind = header[156:157]
    spans: tuple[Span, ...] = (Span(0, length, data),) if length else ()
    size, skipped = length, 0
    if kind == b"S":
        size, spans, skipped = parse_gnu_sparse(archive, header, data, length, what)
    elif is_pax_sparse(records):
        size, spans = parse_pax_sparse(archive, records, extended.sparse_map, data, length, what)
    elif kind not in (b"0", b"\0", b"7"):
        size, spans = 0, ()
    if size > MAX_FILE_BYTES:
        raise BadSource(f"{what} claims {size} bytes; ext4 allows a file {MAX_FILE_BYTES}")
    mode = _field(parse_number(header[100:108]), 0, (1 << 32) - 1, "mode", what) & 0o7777
    member = Member(
        name=name,
        # Before POSIX a directory was a file whose name ends so.
        kind=b"5" if kind in (b"0", b"\0") and name.endswith(b"/") else kind,
        mode=mode,
        uid=_owner(records.get(b"uid"), header[108:116], "uid", what),
        gid=_owner(records.get(b"gid"), header[116:124], "gid", what),
        mtime=_mtime(records.get(b"mtime"), header[136:148], what),
        size=size,
        spans=spans,
        target=records.get(b"linkpath") or extended.long_target or header[157:257].split(b"\0", 1)[0],
        device=_device(header, what) if kind in (b"3", b"4") else (0, 0),
        xattrs={key[len(_XATTR) :]: value for key, value in records.items() if key.startswith(_XATTR)},
        has_text_acl=any(key.startswith(b"SCHILY.acl.") for key in records),
    )
    return member, data + skipped + _padded(length)


def _short_name(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0]
    # In GNU's format other things stand where POSIX has the prefix.
    if header[257:263] == b"ustar\0" and prefix:
        return prefix + b"/" + name
    return name


def _field(value: int | None, low: int, high: int, field_name: str, what: str) -> int:
    if value is None or not low <= value <= high:
        raise BadSource(f"{what}: its {field_name} is not a number from {low} to {high}")
    return value


def _owner(record: bytes | None, text: bytes, field_name: str, what: str) -> int:
    value = parse_number(text) if record is None else _decimal(record)
    return _field(value, 0, (1 << 32) - 2, field_name, what)


def _mtime(record: bytes | None, text: bytes, what: str) -> int:
    if record is None:
        return _field(parse_number(text), -_FARTHEST_S, _FARTHEST_S, "mtime", what)
    found = _MTIME.fullmatch(record)
    if not found:
        raise BadSource(f"{what}: its mtime is not a number")
    below_zero = record.startswith(b"-") and (found[2] or b"").strip(b"0")
    return int(found[1]) - bool(below_zero)


def _device(header: bytes, what: str) -> tuple[int, int]:
    major = _field(parse_number(header[329:337]), 0, (1 << 12) - 1, "device's major number", what)
    return major, _field(parse_number(header[337:345]), 0, (1 << 20) - 1, "device's minor number", what)
