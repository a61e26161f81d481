"""The mount table: who claims what, and what may be released."""

from __future__ import annotations

import posixpath
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.api.resources import Claim, Kind
from uvmd.errors import InUse, Refused
from uvmd.host.table import MountTable, clean

DISK = Claim("/run/mounts/scsi/m1", "/dev/sda", Kind.READ_ONLY)
SCRATCH = Claim("/run/gcs/c/a", "/dev/sdb", Kind.READ_WRITE, encrypted=True)
OVERLAY = Claim(
    "/run/gcs/c/a/rootfs",
    "/run/gcs/c/a/rootfs",
    Kind.OVERLAY,
    uses=("/run/mounts/scsi/m1", "/run/gcs/c/a/scratch/a"),
)

segments = st.sampled_from(["", ".", "..", "a", "b", "..x", "a.", " ", "run"])
paths = st.lists(segments, max_size=7).map("/".join)
absolute = paths.map(lambda path: f"/{path}")


def table_with(*claims: Claim, strict: bool = True) -> MountTable:
    table = MountTable()
    table.change(claims, strict=strict)
    return table


@given(st.one_of(paths, absolute, st.text(string.printable)))
def test_cleaning_is_idempotent_and_leaves_nothing_to_clean(path: str) -> None:
    cleaned = clean(path)
    assert clean(cleaned) == cleaned
    assert "//" not in cleaned
    assert cleaned
    assert cleaned.startswith("/") == path.startswith("/")
    if cleaned.startswith("/"):
        assert not {"", ".", ".."} & set(cleaned.split("/")[1:]) or cleaned == "/"


@given(absolute, absolute)
def test_containment_is_by_whole_components(inner: str, outer: str) -> None:
    inner, outer = clean(inner), clean(outer)
    wanted = outer == "/" or [*inner.split("/")][: len(outer.split("/"))] == outer.split("/")
    found = table_with(Claim(outer, "s", Kind.READ_WRITE)).containing(inner)
    assert (found is not None) == wanted


@given(st.lists(absolute, max_size=6), absolute)
def test_the_deepest_entry_that_contains_a_path_is_found(targets: list[str], path: str) -> None:
    table, held = MountTable(), set()
    for target in targets:
        if clean(target) not in held:
            table.change([Claim(target, "s", Kind.READ_WRITE)], strict=False)
            held.add(clean(target))
    containing = [one for one in held if posixpath.commonpath([one, clean(path)]) == one]
    found = table.containing(path)
    assert (found and found.target) == (max(containing, key=len) if containing else None)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("again", [DISK, SCRATCH._replace(target="/run/mounts/../mounts/scsi//m1/")])
def test_a_path_is_claimed_once_in_every_vm(strict: bool, again: Claim) -> None:
    table = table_with(DISK)
    with pytest.raises(Refused, match=r'device at mount path "/run/mounts/scsi/m1" already exists'):
        table.change([again], strict=strict)
    assert [row["target"] for row in table.rows()] == [DISK.target]


@pytest.mark.parametrize("strict", [True, False])
def test_releasing_from_another_source_is_refused_in_every_vm(strict: bool) -> None:
    table = table_with(DISK)
    with pytest.raises(Refused, match="wrong sourcePath /dev/sdz, expected /dev/sda"):
        table.change(releases=[DISK._replace(source="/dev/sdz")], strict=strict)
    assert table.at(DISK.target)


@pytest.mark.parametrize(
    ("release", "text"),
    [
        (DISK._replace(kind=Kind.READ_WRITE), "wrong device type RW, expected RO"),
        (DISK, 'device at "/run/mounts/scsi/m1" is still in use'),
    ],
)
def test_another_kind_and_a_use_are_refused_in_a_strict_vm_and_logged_elsewhere(
    release: Claim, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    table = table_with(DISK, SCRATCH, OVERLAY)
    with pytest.raises(Refused, match=text):
        table.change(releases=[release], strict=True)
    table.change(releases=[release], strict=False)
    assert table.at(DISK.target) is None
    assert text in caplog.records[0].__dict__["conflict"]


def test_the_error_of_a_use_says_that_it_is_one() -> None:
    with pytest.raises(InUse):
        table_with(DISK, SCRATCH, OVERLAY).change(releases=[SCRATCH], strict=True)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("stated", [True, False])
def test_a_stated_encryption_must_be_right_and_an_unstated_one_need_not(strict: bool, stated: bool) -> None:
    claim = SCRATCH._replace(encrypted=not stated)
    table = table_with(claim)
    with pytest.raises(Refused, match="encrypted flag wrong, provided"):
        table.change(releases=[claim._replace(encrypted=stated)], strict=strict)
    table.change(releases=[claim._replace(encrypted=None)], strict=strict)
    assert table.rows() == []


def test_releasing_what_nobody_claimed_succeeds() -> None:
    table_with(DISK).change(releases=[Claim("/elsewhere", "/dev/sdc", Kind.OVERLAY)], strict=True)


def test_an_overlay_uses_what_contains_its_layers_once_a_layer() -> None:
    twice = OVERLAY._replace(uses=(DISK.target, f"{DISK.target}/deep", "/nowhere"))
    table = table_with(DISK, twice)
    assert {row["target"]: row["use_count"] for row in table.rows()} == {DISK.target: 2, twice.target: 0}
    table.change(releases=[twice], strict=True)
    table.change(releases=[DISK], strict=True)
    assert table.rows() == []


def test_encryption_of_a_path_is_that_of_the_deepest_read_write_mount_around_it() -> None:
    table = table_with(SCRATCH, OVERLAY._replace(uses=()))
    assert table.is_encrypted("/run/gcs/c/a/scratch/a")
    assert not table.is_encrypted("/run/gcs/c/a/rootfs/etc")
    assert not table.is_encrypted("/run/gcs/c/ab")
    assert not table.is_encrypted("/elsewhere")


def test_a_change_happens_whole_or_not_at_all() -> None:
    table = table_with(DISK, SCRATCH, OVERLAY)
    before = table.rows()
    with pytest.raises(Refused):
        table.change([Claim("/new", "x", Kind.READ_WRITE), SCRATCH], [OVERLAY], strict=True)
    assert sorted(table.rows(), key=str) == sorted(before, key=str)


def test_undoing_a_change_puts_entries_and_uses_back() -> None:
    table = table_with(DISK, SCRATCH, OVERLAY)
    before = table.rows()
    undo = table.change([Claim("/new", "x", Kind.READ_WRITE, uses=(DISK.target,))], [OVERLAY], strict=True)
    undo()
    undo()  # a second time does nothing
    assert sorted(table.rows(), key=str) == sorted(before, key=str)


def test_undoing_a_release_does_not_push_out_who_came_meanwhile() -> None:
    table = table_with(DISK)
    undo = table.change(releases=[DISK], strict=False)
    table.change([DISK._replace(source="/dev/sdz")], strict=False)
    undo()
    assert [row["source"] for row in table.rows()] == ["/dev/sdz"]


def test_what_a_container_owns_is_given_newest_first() -> None:
    bind = Claim("/run/gcs/c/w", "/run/gcs/c/s/scratch/w/bundle", Kind.READ_WRITE, owner_container="w")
    table = table_with(bind, bind._replace(target="/run/gcs/c/w/x"), DISK)
    assert [claim.target for claim in table.of_container("w")] == ["/run/gcs/c/w/x", "/run/gcs/c/w"]
    assert table.of_container("") == []


def test_entries_are_found_by_their_source() -> None:
    table = table_with(DISK, DISK._replace(target="/b"), SCRATCH)
    assert [mount.target for mount in table.of_source("/dev/sda")] == [DISK.target, "/b"]


def test_a_claim_without_a_path_is_refused() -> None:
    with pytest.raises(Refused, match="without a path"):
        table_with(Claim("", "x", Kind.READ_WRITE))


def test_a_restored_table_counts_uses_whatever_the_order_of_its_entries() -> None:
    after = MountTable()
    after.restore(reversed(table_with(DISK, SCRATCH, OVERLAY).snapshot()))
    assert {row["target"]: row["use_count"] for row in after.rows()} == {
        DISK.target: 1,
        SCRATCH.target: 1,
        OVERLAY.target: 0,
    }


def test_a_restored_table_knows_entries_uses_and_owners() -> None:
    table = table_with(DISK, SCRATCH, OVERLAY._replace(owner_container="a"))
    after = MountTable()
    after.restore(table.snapshot())
    assert after.rows() == table.rows()
    with pytest.raises(InUse):
        after.change(releases=[DISK], strict=True)


def test_what_is_kept_of_the_table_is_without_changes_under_way() -> None:
    table = table_with(DISK)
    before = table.snapshot()
    added = table.begin([SCRATCH], strict=False)
    removed = table.begin(releases=[DISK], strict=False)
    assert [claim.target for claim in table.claims()] == [SCRATCH.target]
    assert table.snapshot() == before
    added.settle()
    assert {row["target"] for row in table.snapshot()} == {DISK.target, SCRATCH.target}
    added.undo()
    assert table.snapshot() == before
    removed.settle()
    assert table.snapshot() == []
    removed.undo()
    assert table.snapshot() == before


def test_a_change_that_is_refused_leaves_nothing_under_way() -> None:
    table = table_with(DISK)
    with pytest.raises(Refused):
        table.begin([SCRATCH, DISK], strict=False)
    table.change([SCRATCH], strict=False)
    assert table.snapshot() == table_with(DISK, SCRATCH).snapshot()
