"""Every step of every kind of disk fails once; a daemon dies in the middle of each step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from support.storage import Storm
from uvmd.api.testing.faults import Faults
from uvmd.api.testing.kernel import FakeKernel
from uvmd.linux import devmapper
from uvmd_storage_scsi import crypt

Cases = Mapping[str, Mapping[str, Any]]
ALL = ["layer", "partition", "scratch", "xfs", "encrypted", "link", "read-only link"]


@pytest.fixture(params=ALL)
def case(request: pytest.FixtureRequest) -> str:
    """Each kind of disk."""
    return str(request.param)


@pytest.fixture
def storm(
    another: Callable[..., Any],
    kernel: FakeKernel,
    faults: Faults,
    cases: Cases,
    case: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Storm]:
    """What can go wrong with one kind of disk. Nothing that is waited for between two tries comes."""
    monkeypatch.setattr(devmapper, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(crypt, "_AGAIN_S", 1e6)
    with faults.installed():
        yield Storm(
            kernel,
            faults,
            lambda *left: another(*left, verity="always"),
            lambda vm: vm.add("MappedVirtualDisk", cases[case]),
            lambda vm: vm.remove("MappedVirtualDisk", cases[case]),
            # What a tool wrote on the disk stays there, and is no step of ours.
            blank=lambda: kernel.add_device("sda"),
        )


@pytest.mark.parametrize("strict", [False, True], ids=["loose", "strict"])
def test_an_add_that_fails_at_any_step_leaves_the_guest_as_it_was(
    storm: Storm, case: str, strict: bool
) -> None:
    told = " ".join(storm.fail_each_step_of_an_add(strict=strict))
    # The steps that matter were among those that failed.
    assert ("ioctl" in told) == (case in ("layer", "partition", "encrypted", "read-only link"))
    assert ("mount " in told) == (not case.endswith("link"))
    assert ("run mkfs" in told) == (case in ("scratch", "xfs", "encrypted"))
    assert ("run cryptsetup luksOpen" in told) == (case == "encrypted")
    assert ("symlink" in told) == case.endswith("link")


def test_a_remove_that_fails_at_any_step_can_be_repeated(storm: Storm) -> None:
    assert len(storm.fail_each_step_of_a_remove()) >= 3


@pytest.mark.parametrize("strict", [False, True], ids=["loose", "strict"])
def test_an_undo_that_fails_marks_the_vm_and_says_which(storm: Storm, strict: bool) -> None:
    assert len(storm.fail_each_undo(strict=strict)) >= 3


def test_the_next_daemon_takes_away_what_a_killed_one_left_at_any_step(
    storm: Storm, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert storm.kill_in_each_step_of_an_add(monkeypatch) >= 10


def test_a_remove_whose_daemon_was_killed_at_any_step_is_finished_by_the_next(
    storm: Storm, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder: Path = tmp_path_factory.mktemp("run")
    assert storm.kill_in_each_step_of_a_remove(monkeypatch, folder) >= 3
