"""Deleting a container: refusals first, then everything goes, whatever fails on the way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from unit.host.fakes import Bench, Finished
from uvmd.api.resources import Claim, Kind
from uvmd.errors import (
    ContainerNotFound,
    Failed,
    Inconsistent,
    InvalidState,
    Refused,
    RuntimeFailed,
)
from uvmd.host.journal import Journal
from uvmd.host.operations import delete, exec
from uvmd.host.requests import ExecuteRequest
from uvmd.linux import proc


def stopped(bench: Bench, scratch: str = "") -> None:
    bench.create(scratch=scratch)
    bench.start()
    bench.monitor.end(1, 0)


def test_a_stopped_container_goes_with_all_it_had(bench: Bench) -> None:
    scratch = bench.bundle("c1") / "scratch" / "c1"
    stopped(bench, str(scratch))
    scratch.mkdir(parents=True)
    (scratch / "file").write_text("x")
    delete.delete(bench.ctx, "c1")
    assert bench.files() == ["run/console", "run/containers", "run/journal"]
    assert bench.monitor.slots == {}
    assert bench.monitor.containers == {}
    with pytest.raises(ContainerNotFound):
        delete.delete(bench.ctx, "c1")


def test_directories_made_for_a_bundle_alone_go_with_it_and_shared_ones_stay(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = bench.bundle("c1").parent
    for way, left in (("odd/way", []), ("c/odd", ["c"]), ("pods", ["pods"])):
        place = usual / way
        monkeypatch.setattr(bench, "bundle", lambda id_, place=place: place / id_)
        before = sorted(os.listdir(usual))
        bench.create()
        (container,) = bench.ctx.registry.containers()
        assert [os.path.basename(made) for made in container.made_parents] == way.split("/")
        (entry,) = Journal(str(bench.run_dir)).containers()
        assert entry["made_parents"] == [*container.made_parents]
        bench.start()
        bench.monitor.end(bench.ctx.registry.get("c1").init.slot, 0)  # type: ignore[union-attr]
        delete.delete(bench.ctx, "c1")
        assert sorted(os.listdir(usual)) == sorted([*before, *left])
    assert os.listdir(usual / "c") == []


@pytest.mark.parametrize("order", ["c1 c2", "c2 c1"])
def test_directories_that_bundles_share_go_with_the_last_of_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    usual = bench.bundle("c1").parent
    monkeypatch.setattr(bench, "bundle", lambda id_: usual / "odd" / id_ / "bundle")
    before = sorted(os.listdir(usual))
    bench.create("c1")
    bench.create("c2")
    first, last = order.split()
    delete.delete(bench.ctx, first)
    assert os.listdir(usual / "odd") == [last]
    delete.delete(bench.ctx, last)
    assert sorted(os.listdir(usual)) == before


def test_a_running_container_is_refused_and_untouched(bench: Bench) -> None:
    bench.running()
    with bench.nothing_changes(), pytest.raises(InvalidState):
        delete.delete(bench.ctx, "c1")
    bench.gate.strict = True
    with pytest.raises(Refused, match="invalid container id"):
        delete.delete(bench.ctx, "c1")


def test_a_bundle_that_is_a_disk_of_the_hosts_stays_with_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(bench)
    bundle = str(bench.bundle("c1"))
    monkeypatch.setattr(proc, "mounts_at_or_below", lambda path: [bundle] if path == bundle else [])
    bench.ctx.mounts.table.change([Claim(bundle, "/dev/sdb", Kind.READ_WRITE)], strict=False)
    delete.delete(bench.ctx, "c1")
    assert os.path.isdir(bundle)
    assert bench.ctx.mounts.table.at(bundle) is not None


def test_a_strict_vm_calls_a_running_container_refused(bench: Bench) -> None:
    name = "ab" * 32
    bench.create(name)
    bench.start(name)
    bench.gate.strict = True
    with bench.nothing_changes(), pytest.raises(Refused, match="running"):
        delete.delete(bench.ctx, name)


def test_an_inconsistent_vm_deletes_nothing(bench: Bench) -> None:
    stopped(bench)
    bench.gate.inconsistent = "x"
    with bench.nothing_changes(), pytest.raises(Inconsistent):
        delete.delete(bench.ctx, "c1")


def test_a_container_that_was_never_started_is_killed_told_and_deleted(bench: Bench) -> None:
    bench.create()
    delete.delete(bench.ctx, "c1")
    assert bench.monitor.arguments("kill") == [(1, 9)]
    assert [event.container_id for event in bench.told] == ["c1"]
    assert bench.files() == ["run/console", "run/containers", "run/journal"]


def test_init_that_is_dead_but_not_drained_is_waited_for(bench: Bench) -> None:
    pid = bench.running()
    outcome = bench.wait("c1", pid)
    bench.monitor.end(1, 0, drain=False)
    stop_redial = bench.monitor.stop_redial

    def draining(slot: int) -> None:
        stop_redial(slot)
        bench.monitor.drain(slot)

    bench.monitor.stop_redial = draining  # type: ignore[method-assign]
    delete.delete(bench.ctx, "c1")
    assert outcome == [0]


def test_a_runtime_that_will_not_delete_is_forced(bench: Bench) -> None:
    stopped(bench)
    run = bench.monitor.run

    def stubborn(argv: Any, **options: Any) -> Any:
        if argv[5] == "delete" and "--force" not in argv:
            return Finished(1, output=b"the container `c1` is not in `created` or `stopped` state")
        return run(argv, **options)

    bench.monitor.run = stubborn  # type: ignore[method-assign]
    delete.delete(bench.ctx, "c1")
    assert bench.monitor.containers == {}


def test_a_runtime_that_fails_is_answered_and_the_rest_goes(bench: Bench) -> None:
    stopped(bench)
    bench.monitor.outcomes["runtime delete"] = (Finished(1), '{"level":"error","msg":"boom"}\n')
    group = bench.cgroup_top / "pods" / "c1"
    (group / "made-inside").mkdir(parents=True)
    with pytest.raises(RuntimeFailed, match="boom"):
        delete.delete(bench.ctx, "c1")
    assert not bench.bundle("c1").exists()
    assert not group.exists()
    with pytest.raises(ContainerNotFound):
        bench.ctx.registry.get("c1")


def test_a_directory_that_is_still_mounted_is_left_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(bench)
    inside = f"{bench.bundle('c1')}/rootfs"
    monkeypatch.setattr(proc, "mounts_at_or_below", lambda path: [inside])
    with pytest.raises(Failed, match="still mounted"):
        delete.delete(bench.ctx, "c1")
    assert bench.bundle("c1").exists()


def test_symlinks_in_a_bundle_are_removed_and_not_followed(bench: Bench, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("keep")
    stopped(bench)
    (bench.bundle("c1") / "link").symlink_to(precious)
    delete.delete(bench.ctx, "c1")
    assert (precious / "file").read_text() == "keep"


@pytest.mark.parametrize("which", ["scratch", "bundle"])
def test_nothing_is_removed_through_a_symlink_that_came_later(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """As a host puts one on a disk that it writes to."""
    place = bench.roots / "disk" / "way"
    if which == "bundle":
        monkeypatch.setattr(bench, "bundle", lambda id_: place / id_)
    stopped(bench, str(place / "c1") if which == "scratch" else "")
    (tmp_path / "precious" / "c1").mkdir(parents=True)
    (tmp_path / "precious" / "c1" / "file").write_text("keep")
    place.parent.mkdir(exist_ok=True)
    if place.exists():
        place.rename(bench.roots / "disk" / "before")
    place.symlink_to(tmp_path / "precious")
    with pytest.raises(Failed, match=f"{which} of c1: {place}/c1: Too many levels"):
        delete.delete(bench.ctx, "c1")
    assert (tmp_path / "precious" / "c1" / "file").read_text() == "keep"
    assert bench.ctx.registry.find("c1") is None


def test_ended_execs_that_nobody_waited_for_are_let_go(bench: Bench) -> None:
    bench.running()
    exec.execute(bench.ctx, "c1", ExecuteRequest(oci_process={"args": ["a"], "cwd": "/"}))
    bench.monitor.end(2, 0)
    bench.monitor.end(1, 0)
    delete.delete(bench.ctx, "c1")
    assert bench.monitor.slots == {}


def test_an_exec_that_ends_after_its_container_was_deleted_is_told_and_let_go(bench: Bench) -> None:
    bench.running()
    pid = exec.execute(bench.ctx, "c1", ExecuteRequest(oci_process={"args": ["a"], "cwd": "/"}))
    outcome = bench.wait("c1", pid)
    bench.monitor.end(1, 0)
    delete.delete(bench.ctx, "c1")
    bench.monitor.end(2, -9)
    assert outcome == [137]
    assert bench.monitor.slots == {}


def test_what_is_being_deleted_takes_no_other_request(bench: Bench) -> None:
    bench.create()
    container = bench.ctx.registry.get("c1")
    with bench.ctx.registry.deleting(container, 0):
        with pytest.raises(InvalidState):
            bench.start()
        with pytest.raises(InvalidState):
            delete.delete(bench.ctx, "c1")


def test_a_delete_that_cannot_be_recorded_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(bench)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(bench.ctx.journal), "save", full)
    delete.delete(bench.ctx, "c1")
    assert os.listdir(bench.roots) == []
