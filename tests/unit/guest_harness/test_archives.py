"""The archives of an initramfs, read back by a reader of our own."""

from __future__ import annotations

import stat
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from uvmd.api.testing.guest import image
from uvmd.api.testing.guest.cpio import Archive


class Entry(NamedTuple):
    name: str
    mode: int
    content: bytes
    device: tuple[int, int]


def read(data: bytes) -> list[Entry]:
    """Read newc records up to the trailer."""
    entries, at = [], 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        size, name_size = fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        start = at + (110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return entries
        entries.append(Entry(name, fields[1], data[start : start + size], (fields[9], fields[10])))
        at = start + (size + 3) // 4 * 4


names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20)


@given(st.dictionaries(names, st.binary(max_size=40), max_size=8))
def test_every_file_comes_back_whole(files: dict[str, bytes]) -> None:
    archive = Archive()
    for name, content in files.items():
        archive.file(f"folder/{name}", content, 0o755)
    found = read(archive.to_bytes())
    assert {entry.name: entry.content for entry in found if stat.S_ISREG(entry.mode)} == {
        f"folder/{name}": content for name, content in files.items()
    }


def test_parents_come_before_their_children_and_once() -> None:
    archive = Archive()
    archive.file("a/b/c", b"")
    archive.file("a/b/d", b"")
    assert [entry.name for entry in read(archive.to_bytes())] == ["a", "a/b", "a/b/c", "a/b/d"]


def test_links_and_devices_are_what_they_are() -> None:
    archive = Archive()
    archive.link("sh", "busybox")
    archive.device("console", 5, 1)
    link, console = read(archive.to_bytes())
    assert (stat.S_ISLNK(link.mode), link.content) == (True, b"busybox")
    assert (stat.S_ISCHR(console.mode), console.device) == (True, (5, 1))


def test_archives_may_follow_each_other() -> None:
    assert len(Archive().to_bytes()) % 4 == 0


def test_the_archive_has_helpers_for_each_target_and_what_is_brought() -> None:
    archive = image.helpers_archive(("one.target",), files={"lamp/plugin.py": b"A = 1\n"}, settings="[x]")
    found = {entry.name: entry.content for entry in read(archive.to_bytes())}
    units = "extra/etc/systemd/system"
    assert found["extra/opt/testbed/site/lamp/plugin.py"] == b"A = 1\n"
    assert found["extra/opt/testbed/uvmd.toml"] == b"\n[x]\n"
    assert found[f"{units}/uvmd.service.requires/testbed-bring.service"] == b"../testbed-bring.service"
    for name in ("helper", "mirror"):
        unit = f"testbed-{name}.service"
        assert found[f"{units}/one.target.wants/{unit}"] == f"../{unit}".encode()
        program = f"extra/opt/testbed/uvmd/api/testing/guest/inside/{name}.py"
        assert b"def main()" in found[program]


def test_an_archive_that_brings_nothing_changes_no_unit_of_uvmd() -> None:
    names = [entry.name for entry in read(image.helpers_archive().to_bytes())]
    assert not any("uvmd.service" in name or "bring" in name for name in names)
