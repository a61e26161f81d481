"""MappedDirectory with the real mount(8) and umount(8) (root); a tmpfs stands in for the share."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import servers
from servers import TYPE, Vm

from support.faults import Faults
from uvmd.api.testing import Finished
from uvmd.errors import Failed, Refused
from uvmd.linux import mounts
from uvmd_plan9 import commands
from uvmd_plan9.share import MSIZE

pytestmark = pytest.mark.root


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Vm]:
    """A VM whose operator is not patient."""
    vm = Vm(tmp_path / "hasty", mount_timeout_s=0.05, unmount_timeout_s=0.05)
    yield vm
    vm.close()
    assert (vm.mounted(), vm.bench.mounted()) == ([], [])


def faults_of(vm: Vm, monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Dialling the host and running mount(8) are steps as system calls are."""
    return Faults(monkeypatch, also=((vm.host, ("dial",)), (servers, ("run_child",))))


@pytest.fixture(params=[False, True], ids=["loose", "strict"])
def vm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Vm]:
    vm = Vm(tmp_path)
    if request.param:
        vm.bench.be_strict()
    yield vm
    vm.close()
    left = [one.target for one in vm.mounted()]
    mounts.unmount_tree(str(tmp_path), 2)
    assert left == [], "a test left mounts behind"


def test_a_share_is_mounted_and_gone_again(vm: Vm) -> None:
    before = vm.everything()
    vm.add()
    (mounted,) = vm.mounted()
    assert (mounted.target, mounted.source, mounted.read_only) == (str(vm.path), str(vm.path), False)
    assert vm.host.dialled == [564]
    (row,) = vm.bench.table.rows()
    assert (row["source"], row["kind"]) == ("9p:564:1", "RW")
    assert (vm.path.parent.stat().st_mode & 0o7777) == 0o700
    vm.remove()
    assert vm.host.gone(), "nothing keeps the connection"
    assert vm.everything() == before


def test_read_only_is_the_mounts_own_flag(vm: Vm) -> None:
    vm.add(ReadOnly=True)
    (mounted,) = vm.mounted()
    assert mounted.read_only
    with pytest.raises(OSError) as refused:
        (vm.path / "file").touch()
    assert refused.value.errno == errno.EROFS
    vm.remove()


def test_the_sockets_buffers_are_as_large_as_a_message(vm: Vm, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int, int]] = []
    real = socket.socket.setsockopt

    class Seeing(socket.socket):
        def setsockopt(self, *arguments: object) -> None:  # type: ignore[override]
            seen.append(arguments)  # type: ignore[arg-type]
            real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("uvmd_plan9.steps.socket.socket", Seeing)
    vm.add()
    vm.remove()
    level = socket.SOL_SOCKET
    assert seen == [(level, socket.SO_RCVBUF, MSIZE), (level, socket.SO_SNDBUF, MSIZE)]


def test_a_second_share_at_the_same_path_is_refused(vm: Vm) -> None:
    vm.add()
    with pytest.raises(Refused, match="already exists"):
        vm.add(ShareName="2")
    assert len(vm.mounted()) == 1
    vm.remove()


@pytest.mark.parametrize("what", ["link", "file"])
def test_a_symlink_or_a_file_in_the_way_is_not_followed(vm: Vm, what: str) -> None:
    outside = vm.base / "outside"
    outside.mkdir()
    if what == "link":
        (vm.base / "c1").symlink_to(outside)
    else:
        vm.path.parent.mkdir(parents=True)
        vm.path.write_text("kept")
    before = vm.everything()
    with pytest.raises(Failed, match=f"directory for mapped directory {vm.path}: "):
        vm.add()
    assert vm.everything() == before
    assert (vm.host.dialled, list(outside.iterdir())) == ([], [])


def test_what_mount_says_is_the_answer(vm: Vm) -> None:
    before = vm.everything()
    vm.run.meanwhile = lambda argv, deadline: Finished(
        32, b"mount: /proc/self/fd/4: wrong fs type, bad option.\n   dmesg(1) may have more.\n"
    )
    text = f"failed to mount directory for mapped directory {vm.path}: mount {vm.path}: wrong fs type"
    with pytest.raises(Failed, match=text):
        vm.add()
    vm.run.meanwhile = lambda argv, deadline: None
    assert vm.host.gone()
    assert vm.everything() == before


def test_a_server_that_never_answers_is_given_up_and_its_connection_ended(hasty: Vm) -> None:
    def hang(argv: list[str], deadline: float) -> Finished:
        """As the kernel: wait for the server, or for the end of the connection."""
        (end,) = hasty.host.ends
        end.settimeout(deadline - time.monotonic())
        assert end.recv(1) == b""
        return Finished(32, b"mount: /proc/self/fd/4: Connection reset by peer.\n")

    hasty.run.meanwhile = hang
    with pytest.raises(Failed, match=r"the host's server did not answer for 0.[0-9] s"):
        hasty.add()


def test_an_unmount_that_hangs_ends_with_the_connection(hasty: Vm) -> None:
    hasty.add()

    def hang(argv: list[str], deadline: float) -> None:
        (end,) = hasty.host.ends
        end.settimeout(deadline - time.monotonic())
        assert end.recv(1) == b""

    hasty.run.meanwhile = hang
    hasty.remove()


def test_a_busy_share_marks_the_vm_and_stays_known(vm: Vm) -> None:
    vm.add()
    with open(vm.path / "busy", "wb"):
        with pytest.raises(Failed, match=f"unmounting plan9 device at {vm.path} failed: .*target is busy"):
            vm.remove()
    mark = vm.bench.gate.inconsistent if vm.bench.gate.strict else vm.bench.gate.degraded
    assert f"unmounting plan9 device at {vm.path}" in (mark or "")
    assert vm.bench.mounted() == [str(vm.path)]
    if vm.bench.gate.strict:
        mounts.unmount(str(vm.path))
    else:
        vm.remove()


def test_one_that_is_gone_already_is_removed(vm: Vm) -> None:
    vm.add()
    mounts.unmount(str(vm.path))
    vm.remove()
    assert (vm.bench.mounted(), vm.path.exists()) == ([], False)


def test_a_restarted_daemon_removes_what_an_earlier_one_added(vm: Vm) -> None:
    vm.add()
    vm.bench = vm.fresh_bench()
    vm.bench.modifier.resume()
    vm.remove()
    assert (vm.mounted(), vm.bench.mounted(), vm.path.exists()) == ([], [], False)


def test_whichever_call_of_an_add_fails_everything_is_as_before(
    vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = vm.everything()
    met = []
    for fault in faults_of(vm, monkeypatch).each_call(vm.add, vm.remove):
        met.append(fault)
        assert vm.everything() == before, fault
    assert vm.bench.mounted() == [str(vm.path)]
    told = " ".join(met)
    assert all(step in told for step in ("mkdir", "dial", "setsockopt", "run_child"))
    vm.remove()


def test_whichever_call_of_a_removal_fails_it_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = Vm(tmp_path)
    vm.add()
    met = []
    for fault in faults_of(vm, monkeypatch).each_call(vm.remove, lambda: None):
        met.append(fault)
        if vm.bench.mounted():
            vm.remove()
        assert (vm.bench.mounted(), vm.mounted(), vm.path.exists()) == ([], [], False), fault
        vm.add()
    assert vm.mounted() == []
    assert any("run_child(['umount'" in fault for fault in met)
    vm.close()


def test_whichever_undo_fails_the_vm_is_marked_and_the_rest_is_undone(
    vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise Failed("no space to record it")

    strict = vm.bench.gate.strict
    before = {**vm.everything(), "marks": None}
    vm.bench.records.commit = fail  # type: ignore[method-assign,assignment]
    steps = []
    for step in faults_of(vm, monkeypatch).each_undo(vm.add):
        steps.append(step)
        assert step in ((vm.bench.gate.inconsistent if strict else vm.bench.gate.degraded) or "")
        assert {**vm.everything(), "marks": None} == before, step
        vm.bench = vm.fresh_bench()
        if strict:
            vm.bench.be_strict()
        vm.bench.records.commit = fail  # type: ignore[method-assign,assignment]
    assert f"unmount {vm.path}" in steps
    assert len(steps) == len(set(steps)) > 3


def revived(vm: Vm) -> None:
    """A new daemon takes over from one that died; the kernel has closed what that one had open."""
    vm.close()
    vm.benches.clear()
    vm.host.ends.clear()
    strict = vm.bench.gate.strict
    vm.bench = vm.fresh_bench()
    if strict:
        vm.bench.be_strict()
    vm.bench.modifier.resume()


def test_wherever_a_daemon_is_killed_the_next_does_what_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uvmd_plan9.steps.FSTYPE", "tmpfs")
    vm = Vm(tmp_path)
    steps = []
    for step in faults_of(vm, monkeypatch).each_death(vm.add):
        steps.append(step)
        revived(vm)
        if not vm.bench.mounted():  # otherwise it was done, and only the answer was missing
            vm.add()
        assert [one.target for one in vm.mounted()] == [str(vm.path)], step
        vm.remove()
        assert (vm.mounted(), vm.path.exists()) == ([], False), step
        assert vm.state.load().get("begun", {}) == {}, step
        revived(vm)
    assert len(steps) > 8
    vm.remove()
    vm.close()


def test_wherever_a_daemon_is_killed_a_removal_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = Vm(tmp_path)
    vm.add()
    steps = []
    for step in faults_of(vm, monkeypatch).each_death(vm.remove):
        steps.append(step)
        revived(vm)
        vm.remove()
        assert (vm.mounted(), vm.bench.mounted(), vm.path.exists()) == ([], [], False), step
        revived(vm)
        vm.add()
    assert len(steps) >= 3
    vm.close()


def test_a_mount_that_was_made_by_a_program_that_was_killed_then_is_taken_away(
    vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, real = vm.everything(), servers.run_child

    def too_late(argv: list[str], deadline: float, fds: Sequence[int]) -> Finished:
        done = real(argv, deadline, fds)
        return Finished(-9, b"", timed_out=True) if argv[0] == "mount" else done

    monkeypatch.setattr(servers, "run_child", too_late)
    with pytest.raises(Failed, match="the host's server did not answer"):
        vm.add()
    assert vm.everything() == before


@pytest.mark.parametrize("which", ["mount", "umount"])
def test_a_program_that_cannot_be_run_fails_its_step(vm: Vm, which: str) -> None:
    def missing(argv: list[str], deadline: float) -> None:
        if argv[0] == which:
            raise FileNotFoundError(2, "No such file or directory", which)

    vm.run.meanwhile = missing
    if which == "mount":
        before = vm.everything()
        with pytest.raises(Failed, match=r"failed to mount directory .*: no such file"):
            vm.add()
        assert vm.everything() == before
        return
    vm.add()
    with pytest.raises(Failed, match=r"unmounting plan9 device .*: no such file"):
        vm.remove()
    mounts.unmount(str(vm.path))


def test_too_many_stacked_mounts_are_left_to_people(vm: Vm, monkeypatch: pytest.MonkeyPatch) -> None:
    vm.add()
    monkeypatch.setattr(commands, "_MOST_STACKED", 0)
    with pytest.raises(Failed, match="1 mounts are stacked"):
        vm.remove()
    monkeypatch.undo()
    mounts.unmount(str(vm.path))


def test_what_a_killed_daemon_left_is_taken_away_by_the_next(vm: Vm, monkeypatch: pytest.MonkeyPatch) -> None:
    # As if it had died right after it had noted what it began; a tmpfs is no share of ours.
    vm.state.save({"begun": {str(vm.path): {}}})
    vm.path.mkdir(parents=True)
    vm.bench = vm.fresh_bench()
    vm.bench.add(TYPE, vm.settings(MountPath=str(vm.base / "other")))
    assert not vm.path.exists()
    vm.bench.remove(TYPE, {"MountPath": str(vm.base / "other")})
