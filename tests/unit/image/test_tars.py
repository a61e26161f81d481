"""Reading tars: as the standard library writes them, and as an attacker would."""

from __future__ import annotations

import contextlib
import io
import stat
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.image.archives import Entry, directory, entry, layer, link, region, symlink, tar
from uvmd.image.errors import BadSource
from uvmd.image.tar_headers import Member, parse_number, parse_records, read_members
from uvmd.image.tars import read_tar
from uvmd.image.tree import Inode

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def members(content: bytes) -> list[Member]:
    return list(read_members(region(content)))


def found(*entries: Entry) -> dict[str, Inode]:
    return {b"/".join(path).decode(): inode for path, inode in layer(*entries).tree.walk()}


names = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=120).filter(
    lambda name: name not in (".", "..") and not name.startswith(".wh.") and len(name.encode()) < 200
)


@given(
    name=st.lists(names, min_size=1, max_size=3).map("/".join),
    data=st.binary(max_size=1500),
    uid=st.integers(0, 1 << 31),
    mode=st.integers(0, 0o7777),
    mtime=st.integers(-(1 << 33), 1 << 34),
    format=st.sampled_from(FORMATS[1:]),
)
def test_what_the_standard_library_writes_is_read(
    name: str, data: bytes, uid: int, mode: int, mtime: int, format: int
) -> None:
    written = entry(name, data, uid=uid, gid=uid // 2, mode=mode, mtime=mtime)
    content = tar(written, entry("behind", b"x"), format=format)
    first, second = members(content)
    assert (first.name.decode(), first.kind) == (name, b"0")
    assert (first.uid, first.gid, first.mode, first.mtime, first.size) == (
        uid,
        uid // 2,
        mode,
        mtime,
        len(data),
    )
    assert b"".join(content[span.at : span.at + span.length] for span in first.spans) == data
    assert second.name == b"behind"


@pytest.mark.parametrize("format", FORMATS)
def test_every_kind_of_entry_becomes_its_kind_of_file(format: int) -> None:
    tree = layer(
        directory("d", mode=0o1777),
        entry("d/f", b"data", mode=0o4755),
        symlink("s", "/etc/passwd"),
        link("h", "d/f"),
        entry("c", kind=tarfile.CHRTYPE, devmajor=5, devminor=1),
        entry("b", kind=tarfile.BLKTYPE, devmajor=8, devminor=17),
        entry("p", kind=tarfile.FIFOTYPE),
        format=format,
    ).tree
    modes = {b"/".join(path).decode(): inode for path, inode in tree.walk()}
    assert modes["d"].mode == stat.S_IFDIR | 0o1777
    assert modes["d/f"].mode == stat.S_IFREG | 0o4755
    assert (stat.S_ISLNK(modes["s"].mode), modes["s"].target) == (True, b"/etc/passwd")
    assert modes["h"] is modes["d/f"]
    assert (stat.S_ISCHR(modes["c"].mode), modes["c"].device) == (True, (5, 1))
    assert (stat.S_ISBLK(modes["b"].mode), modes["b"].device) == (True, (8, 17))
    assert stat.S_ISFIFO(modes["p"].mode)


def test_attributes_may_hold_any_byte() -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    records = {"SCHILY.xattr.security.capability": capability.decode("latin-1"), "mtime": "-1.5"}
    tree = found(entry("f", pax_headers=records), entry("g"))
    # The standard library writes UTF-8; latin-1 below 0x80 is the same bytes.
    assert tree["f"].xattrs == {b"security.capability": capability}
    assert tree["f"].mtime == -2
    assert tree["g"].xattrs == {}


def test_global_headers_hold_for_all_that_follow() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"uid": "77"}) as archive:
        archive.addfile(tarfile.TarInfo("a"))
        archive.addfile(tarfile.TarInfo("b"))
    assert [member.uid for member in members(out.getvalue())] == [77, 77]


def test_acls_as_text_are_ignored_aloud() -> None:
    tree = layer(entry("f", pax_headers={"SCHILY.acl.access": "user::rwx"})).tree
    assert tree.warnings == ["1 entries have ACLs as text (SCHILY.acl), ignoring those"]


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([entry("../../etc/cron.d/x", b"x")], "has '..' in its path"),
        ([link("a", "../../etc/shadow")], "the target of hard link 'a' '../../etc/shadow' has '..'"),
        ([link("a", "/etc/shadow")], "points at 'etc/shadow', which is not in this tree"),
        ([symlink("a", "/etc"), entry("a/shadow", b"x")], "below 'a', which is a symbolic link"),
        ([symlink("a", "")], "symbolic link 'a' has no target"),
        ([entry("f", kind=b"Q")], "'f' has the unknown type b'Q'"),
        ([entry(".wh.", b"")], "whiteout '.wh.' names nothing"),
        ([entry(".wh...", b"")], "whiteout '.wh...' names nothing"),
        ([entry("f", pax_headers={"uid": "x"})], "its uid is not a number"),
        ([entry("f", pax_headers={"gid": "4294967295"})], "its gid is not a number"),
        ([entry("f", pax_headers={"mtime": "never"})], "its mtime is not a number"),
        ([entry("c", kind=tarfile.CHRTYPE, devmajor=4096)], "major number"),
    ],
)
def test_hostile_entries_are_refused_with_their_names(entries: list[Entry], says: str) -> None:
    with pytest.raises(BadSource) as caught:
        layer(*entries)
    assert says in str(caught.value)


def header(**fields: bytes) -> bytearray:
    """One ustar header; fields by name, checksum right."""
    places = {"name": 0, "mode": 100, "size": 124, "mtime": 136, "kind": 156, "magic": 257, "more": 482}
    raw = bytearray(512)
    for name, value in {"mode": b"0000644", "kind": b"0", "magic": b"ustar\x0000", **fields}.items():
        raw[places[name] : places[name] + len(value)] = value
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return raw


END = bytes(1024)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "cut off: 0 bytes, and no end mark"),
        (b"x" * 512 + END, "is not a tar archive"),
        (bytes(header(name=b"f")), "no end mark"),
        (bytes(header(name=b"f")) + b"garbage!" * 64 + END, "damaged: no tar header at byte 512"),
        (
            bytes(header(name=b"f", size=b"\xff" * 12)) + END,
            "the entry at byte 0 is not a number that can be",
        ),
        (bytes(header(name=b"f", size=b"\x80" + b"\xff" * 11)) + END, "is cut off: the entry at byte 0 has"),
        (bytes(header(name=b"f", size=b"77777777777")) + END, "has 8589934591 bytes, and 1024 follow"),
        (bytes(header(name=b"f", size=b"9")) + END, "is not a number"),
        (bytes(header(kind=b"x", size=b"40000000")) + bytes(9 << 20), "extended header of 8388608 bytes"),
        (bytes(header(kind=b"L", size=b"40000000")) + bytes(9 << 20), "extended header of 8388608 bytes"),
        (bytes(header(kind=b"M", name=b"f")) + END, "volumes"),
    ],
)
def test_damaged_and_hostile_archives_are_refused(content: bytes, says: str) -> None:
    with pytest.raises(BadSource) as caught:
        members(content)
    assert says in str(caught.value)


def test_a_volume_label_is_no_file() -> None:
    assert [one.name for one in members(bytes(header(kind=b"V") + header(name=b"f")) + END)] == [b"f"]


def test_an_archive_with_a_checked_digest_may_lack_its_end() -> None:
    content = bytes(header(name=b"f"))
    assert [one.name for one in read_members(region(content), sealed=True)] == [b"f"]
    assert list(read_members(region(b""), sealed=True)) == []
    with pytest.raises(BadSource, match="cut off"):
        list(read_members(region(content + b"x"), sealed=True))


@given(st.data())
def test_a_cut_archive_is_never_taken_for_a_whole(data: st.DataObject) -> None:
    content = tar(entry("a", b"x" * 700), entry("b" * 150, b"y"))
    whole = content.rstrip(b"\0")
    cut = content[: data.draw(st.integers(0, len(whole)))]
    with pytest.raises(BadSource, match="cut off"):
        read_tar(region(cut))


@given(st.data())
def test_no_damage_makes_it_fail_in_another_way(data: st.DataObject) -> None:
    content = bytearray(tar(entry("a" * 120, b"x" * 600), link("l", "a" * 120), format=tarfile.PAX_FORMAT))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadSource):
        read_tar(region(bytes(content)))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"0000644\0", 0o644),
        (b"   644 \0", 0o644),
        (b"\0" * 8, 0),
        (b"12x4567\0", None),
        (b"-1\0", None),
        (b"\x80" + bytes(6) + b"\x05", 5),
        (b"\xff" * 8, -1),
        (b"\xff" * 7 + b"\xfe", -2),
    ],
)
def test_numbers_of_headers_are_octal_or_binary(text: bytes, number: int | None) -> None:
    assert parse_number(text) == number


@given(st.lists(st.tuples(st.from_regex(rb"[a-zA-Z.]{1,20}", fullmatch=True), st.binary(max_size=50))))
def test_pax_records_survive_with_any_value(records: list[tuple[bytes, bytes]]) -> None:
    text = b""
    for key, value in records:
        body = b" " + key + b"=" + value + b"\n"
        length = len(body) + len(str(len(body)))
        length = len(body) + len(str(length))
        text += b"%d" % length + body
    assert list(parse_records(text, "x")) == records


@pytest.mark.parametrize(
    "text", [b"5 a=b\n", b"99 a=b\n", b"x a=b\n", b"3 \n", b"6 abc\n", b"6 =ab\n", b"0 a=b\n"]
)
def test_pax_records_that_lie_about_their_length_are_refused(text: bytes) -> None:
    with pytest.raises(BadSource, match="a record"):
        list(parse_records(text, "x"))


@given(st.permutations(range(6)))
def test_the_order_of_entries_does_not_matter(order: list[int]) -> None:
    entries = [
        directory("d", uid=4, mtime=9),
        entry("d/f", b"1"),
        link("h", "d/f"),
        symlink("s", "h"),
        entry("d/.wh.gone"),
        entry("e/.wh..wh..opq"),
    ]
    one, other = layer(*entries), layer(*(entries[index] for index in order))
    shape = [(path, inode.mode, inode.uid, inode.mtime) for path, inode in one.tree.walk()]
    assert shape == [(path, inode.mode, inode.uid, inode.mtime) for path, inode in other.tree.walk()]
    assert (one.gone, one.opaque) == (other.gone, other.opaque)
