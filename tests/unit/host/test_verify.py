"""The journal against the kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unit.host.fakes import Bench, FakeGate
from uvmd.api.resources import Claim, Kind
from uvmd.host import verify
from uvmd.linux import proc


class Gate(FakeGate):
    closed: str | None = None

    def close_door(self, cause: str) -> None:
        self.closed = cause


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> list[proc.Mount]:
    there: list[proc.Mount] = []
    monkeypatch.setattr(proc, "mounts", lambda: there)
    return there


def mount(target: str, options: str = "rw,relatime,rw", fstype: str = "ext4") -> proc.Mount:
    return proc.Mount(target, fstype, "/dev/x", options)


def test_what_is_mounted_as_recorded_is_fine(kernel: list[proc.Mount], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/null")
    kernel += [mount("/a", "ro,relatime,ro"), mount("/b"), mount("/c", fstype="overlay")]
    claims = [
        Claim("/a", kind=Kind.READ_ONLY),
        Claim("/b", kind=Kind.READ_WRITE),
        Claim("/c", kind=Kind.OVERLAY),
        Claim(str(tmp_path / "link"), kind=Kind.BLOCK_DEVICE),
    ]
    assert list(verify.mounts(claims, ())) == []


def test_whatever_is_different_is_named(kernel: list[proc.Mount], tmp_path: Path) -> None:
    kernel += [mount("/a"), mount("/c")]
    claims = [
        Claim("/a", kind=Kind.READ_ONLY),
        Claim("/b", kind=Kind.READ_WRITE),
        Claim("/c", kind=Kind.OVERLAY),
        Claim(str(tmp_path / "link"), kind=Kind.BLOCK_DEVICE),
    ]
    assert list(verify.mounts(claims, ())) == [
        "/a is not mounted read-only",
        "nothing is mounted at /b",
        "/c is no overlay",
        f"{tmp_path}/link is not there",
    ]


def test_an_encrypted_disk_is_on_a_mapped_device(kernel: list[proc.Mount], tmp_path: Path) -> None:
    kernel.append(mount(str(tmp_path)))
    claims = [Claim(str(tmp_path), kind=Kind.READ_WRITE, encrypted=True)]
    assert list(verify.mounts(claims, ())) == [f"{tmp_path} is not on an encrypted device"]


def test_what_was_interrupted_is_judged_when_it_has_ended(kernel: list[proc.Mount]) -> None:
    claims = [
        Claim("/run/m1", kind=Kind.READ_ONLY),
        Claim("/run/m12", kind=Kind.READ_ONLY),
        Claim("/run/c", kind=Kind.BIND),
        Claim("/run/c/rootfs", kind=Kind.OVERLAY),
    ]
    assert list(verify.mounts(claims, ["/run/m12", "/run/c/rootfs"])) == ["nothing is mounted at /run/m1"]


def test_a_symlink_on_the_way_does_not_matter(kernel: list[proc.Mount], tmp_path: Path) -> None:
    (tmp_path / "real" / "m").mkdir(parents=True)
    (tmp_path / "way").symlink_to("real")
    kernel.append(mount(str(tmp_path / "real" / "m")))
    assert list(verify.mounts([Claim(f"{tmp_path}/way/m", kind=Kind.BIND)], ())) == []


def test_a_process_is_known_by_its_start_time_and_cgroup(bench: Bench) -> None:
    bench.running()
    container = bench.ctx.registry.get("c1")
    assert container.init is not None
    container.init.pid = os.getpid()
    container.init.start_time = proc.start_time(os.getpid())
    group = bench.cgroup_top / "pods" / "c1"
    group.mkdir()
    (group / "cgroup.procs").write_text(f"{os.getpid()}\n")
    check = lambda: list(verify.processes(bench.ctx.cgroups, [container]))  # noqa: E731
    assert check() == []
    (group / "cgroup.procs").write_text("1\n")
    assert check() == [f"process {os.getpid()} of c1 is not in its cgroup"]
    container.init.start_time += 1
    assert check()[0] == f"process {os.getpid()} of c1 is another one"
    container.init.status = 0
    assert check() == []


def test_a_mismatch_closes_a_strict_vms_door_and_marks_another() -> None:
    strict, other, fine = Gate(strict=True), Gate(), Gate(strict=True)
    for gate in (strict, other):
        verify.judge(gate, iter(["first", "second"]))
    verify.judge(fine, iter(()))
    assert strict.closed is not None
    assert "first" in strict.closed
    assert other.closed is None
    assert other.degraded == "after a restart: first"
    assert (fine.closed, fine.inconsistent) == (None, None)
