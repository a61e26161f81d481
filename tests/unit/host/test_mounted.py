"""What goes with a container when it is deleted, what keeps it, and the table for people."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unit.host.fakes import Bench
from uvmd.api.resources import Claim, Kind
from uvmd.api.testing import FakeContainers
from uvmd.errors import Refused
from uvmd.host.mounted import MAX_ROWS_BYTES, ContainerMounts
from uvmd.host.operations import delete
from uvmd.host.records import Records
from uvmd.host.table import MountTable
from uvmd.linux import mounts

DISK = Claim("/run/disk", "/dev/sda", Kind.READ_WRITE)
BIND = Claim("/run/c/c1", "/run/disk/s/bundle", Kind.BIND, uses=("/run/disk/s",), owner_container="c1")
OVERLAY = Claim("/run/c/c1/rootfs", "/run/c/c1/rootfs", Kind.OVERLAY, uses=("/run/l", "/run/disk/s"))


@pytest.fixture
def unmounted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    done: list[str] = []
    monkeypatch.setattr(mounts, "unmount_beneath", done.append)
    return done


def holding(*claims: Claim, records: Records | None = None) -> ContainerMounts:
    mounted = ContainerMounts(MountTable(), records)
    mounted.table.change(claims, strict=True)
    return mounted


def targets(mounted: ContainerMounts) -> list[str]:
    return [row["target"] for row in mounted.table.rows()]


def test_what_was_claimed_for_a_container_goes_newest_first(unmounted: list[str], tmp_path: Path) -> None:
    path = tmp_path / "devices.json"
    inner = Claim("/run/c/c1/inner", "x", Kind.BIND, uses=("/run/c/c1",), owner_container="c1")
    mounted = holding(DISK, BIND, inner, records=Records(str(path)))
    mounted.undo("c1", strict=True)
    assert unmounted == [inner.target, BIND.target]
    assert targets(mounted) == [DISK.target]
    assert [row["target"] for row in json.loads(path.read_text())["mounts"]] == [DISK.target]
    mounted.undo("c1", strict=True)
    mounted.undo("", strict=True)
    assert len(unmounted) == 2


def test_what_cannot_be_unmounted_stays_in_the_table(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def busy(path: str) -> None:
        raise OSError(16, "Device or resource busy", path)

    monkeypatch.setattr(mounts, "unmount_beneath", busy)
    mounted = holding(DISK, BIND)
    with caplog.at_level(logging.ERROR):
        mounted.undo("c1", strict=True)
    assert targets(mounted) == [DISK.target, BIND.target]
    assert "ignoring" in caplog.text


def test_what_something_else_rests_on_is_left_alone_in_a_strict_vm(unmounted: list[str]) -> None:
    above = OVERLAY._replace(uses=("/run/c/c1",))
    mounted = holding(DISK, BIND, above)
    mounted.undo("c1", strict=True)
    assert (unmounted, BIND.target in targets(mounted)) == ([], True)
    mounted.undo("c1", strict=False)
    assert unmounted == [BIND.target]


def test_the_table_tells_people_who_uses_what_and_whose_request_it_was() -> None:
    records = Records()
    mounted = holding(DISK, BIND, OVERLAY, records=records)
    records.commit("MappedVirtualDisk", "path:/run/disk", {"v": 1}, mounted.table)
    records.commit("CombinedLayers", f"path:{OVERLAY.target}", {"v": 1}, mounted.table)
    rows = {row["target"]: row for row in mounted.rows(FakeContainers(roots={"c1": OVERLAY.target}))}
    assert (rows["/run/disk"]["request"], rows["/run/disk"]["record"]) == ("MappedVirtualDisk", {"v": 1})
    assert rows["/run/disk"]["used_by"] == [BIND.target, OVERLAY.target]
    assert rows[BIND.target]["request"] == ""
    assert rows[BIND.target]["owner_container"] == "c1"
    assert (rows[OVERLAY.target]["containers"], rows["/run/disk"]["containers"]) == (["c1"], [])


@given(count=st.integers(0, 700), long=st.integers(1, 60), uses=st.integers(0, 3))
@settings(max_examples=30)
def test_however_large_the_table_it_fits_an_answer(count: int, long: int, uses: int) -> None:
    table = MountTable()
    below = tuple(f"/run/{'l' * long}/{n}" for n in range(uses))
    table.change(
        [Claim(f'/run/"{n}"', "/dev/sda", Kind.READ_ONLY, uses=below) for n in range(count)], strict=True
    )
    rows = ContainerMounts(table).rows(FakeContainers())
    assert len(json.dumps(json.dumps(rows))) <= MAX_ROWS_BYTES + 100
    more = rows[-1].get("more", 0) if rows else 0
    assert len(rows) - bool(more) + more == count


def test_a_table_of_the_usual_size_is_whole() -> None:
    table, records = MountTable(), Records()
    for n in range(60):
        table.change([Claim(f"/run/mounts/scsi/m{n}", "/dev/sda", Kind.READ_ONLY)], strict=True)
        records.commit("MappedVirtualDisk", f"path:/run/mounts/scsi/m{n}", {"v": 1, "hash": "a" * 64}, table)
    rows = ContainerMounts(table, records).rows(FakeContainers())
    assert all(row["record"]["hash"] for row in rows)


def test_deleting_a_container_takes_its_bundle_off_the_scratch_and_then_removes_both(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, scratch = bench.bundle("c1"), bench.roots / "scratch"
    bench.create(scratch=str(scratch))
    scratch.mkdir()
    there: list[tuple[bool, bool, bool]] = []

    def unmount(path: str) -> None:
        assert path == str(bundle)
        there.append((bundle.exists(), scratch.exists(), "c1" in bench.monitor.containers))

    monkeypatch.setattr(mounts, "unmount_beneath", unmount)
    claim = Claim(str(bundle), f"{scratch}/bundle", Kind.BIND, owner_container="c1")
    bench.ctx.mounts.table.change([claim], strict=False)
    delete.delete(bench.ctx, "c1")
    assert there == [(True, True, False)], "after the runtime's delete, before the directories"
    assert not bundle.exists()
    assert not scratch.exists()
    assert bench.ctx.mounts.table.rows() == []


def test_a_strict_vm_keeps_a_container_whose_overlay_is_mounted(bench: Bench) -> None:
    name = "ab" * 32
    bench.create(name)
    root = f"{bench.bundle(name)}/rootfs"
    bench.ctx.mounts.table.change([Claim(root, root, Kind.OVERLAY)], strict=True)
    bench.gate.strict = True
    with bench.nothing_changes(), pytest.raises(Refused) as refusal:
        delete.delete(bench.ctx, name)
    assert str(refusal.value) == ("Denied deleting state of a container with a overlay mount still active")
    bench.ctx.mounts.table.change(releases=[Claim(root)], strict=True)
    delete.delete(bench.ctx, name)


def test_a_root_is_compared_by_its_clean_path() -> None:
    from uvmd.host.containers import Container, State
    from uvmd.host.host import ContainerView
    from uvmd.host.registry import Registry

    registry = Registry()
    registry.add(Container("c1", "", root="/run/c//c1/rootfs/", state=State.CREATED))
    registry.add(Container("c2", "", root="/run/c/c2/rootfs", state=State.TERMINATED))
    view = ContainerView(registry)
    assert view.using_root("/run/c/c1/rootfs") == ["c1"]
    assert view.using_root("/run/c/c2/rootfs") == []
