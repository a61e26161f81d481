"""chronyd on the hypervisor's clock."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import cast

import pytest

from uvmd.daemon import time_sync
from uvmd.monitor.link import Completed, Link, MonitorError


def clocks(folder: Path, **names: str) -> str:
    for device, name in names.items():
        (folder / device).mkdir()
        (folder / device / "clock_name").write_text(f"{name}\n")
    return str(folder)


def test_the_clock_is_the_hypervisors_whatever_its_number(tmp_path: Path) -> None:
    folder = clocks(tmp_path, ptp0="ixgbe", ptp1="KVM virtual PTP", ptp3="hyperv")
    assert time_sync.find_clock(folder) == "ptp3"
    (tmp_path / "ptp3" / "clock_name").write_text("hyperv of another kind\n")
    assert time_sync.find_clock(folder) == "ptp1"


def test_no_clock_is_none(tmp_path: Path) -> None:
    assert time_sync.find_clock(clocks(tmp_path, ptp0="e1000e")) is None
    assert time_sync.find_clock(str(tmp_path / "none")) is None


def test_the_configuration_is_the_references() -> None:
    assert time_sync.configuration("ptp2") == (
        "refclock PHC /dev/ptp2 poll 3 dpoll -2 offset 0 stratum 2\nmakestep 0.1 -1\n"
    )


def test_without_a_clock_there_is_a_warning_and_nothing_is_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    time_sync.start(cast(Link, None), str(tmp_path), first=True, folder=str(tmp_path / "none"))
    assert caplog.records[0].levelno == logging.WARNING
    assert not (tmp_path / "chronyd.conf").exists()


def test_a_configuration_that_cannot_be_written_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = clocks(tmp_path, ptp0="hyperv")
    time_sync.start(cast(Link, None), str(tmp_path / "none"), first=True, folder=folder)
    assert "cannot be written" in caplog.records[0].getMessage()


class Chronyd:
    """Lives as long as each entry says, then cannot be run any more."""

    def __init__(self, *lives_s: float) -> None:
        self.lives_s = list(lives_s)
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> Completed:
        if not self.lives_s:
            raise MonitorError(errno.ENOENT, "chronyd: No such file or directory")
        self.now += self.lives_s.pop(0)
        return Completed(1, False, b"starting\nFatal error : no clock\n", 0)

    def supervised(self, random: float = 0.5) -> list[float]:
        time_sync.supervise(self, self.pauses.append, clock=lambda: self.now, random=lambda: random)
        return self.pauses


def test_the_pauses_grow_up_to_a_limit() -> None:
    pauses = Chronyd(*[0.0] * 40).supervised()
    assert pauses[:3] == [0.5, 0.75, 1.125]
    assert pauses == sorted(pauses)
    assert pauses[-1] == time_sync.LONGEST_PAUSE_S


def test_one_that_ran_for_a_while_begins_anew() -> None:
    assert Chronyd(0, 0, 3600, 0).supervised() == [0.5, 0.75, 0.5, 0.75]


def test_no_pause_is_left_out_or_beyond_the_limit_by_chance() -> None:
    assert Chronyd(0).supervised(random=0.0) == [0.25]
    assert max(Chronyd(*[0.0] * 40).supervised(random=1.0)) == time_sync.LONGEST_PAUSE_S


def test_its_last_words_are_logged_and_a_missing_program_once(caplog: pytest.LogCaptureFixture) -> None:
    Chronyd(0).supervised()
    first, last = caplog.records
    assert (first.__dict__["status"], first.__dict__["output"]) == (1, "Fatal error : no clock")
    assert "cannot be run" in last.getMessage()


def test_a_passing_failure_of_the_monitor_is_tried_again() -> None:
    failures = [MonitorError(errno.EAGAIN, "busy"), MonitorError(errno.ENOENT, "gone")]

    def run() -> Completed:
        raise failures.pop(0)

    pauses: list[float] = []
    time_sync.supervise(run, pauses.append, clock=lambda: 0.0, random=lambda: 0.5)
    assert pauses == [0.5]


def test_other_processes_are_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "12").mkdir()
    (tmp_path / "12" / "cmdline").write_bytes(b"chronyd\0-n\0-f\0/etc/chrony.conf\0")
    (tmp_path / "13").mkdir()
    time_sync.wait_for_earlier("/run/uvmd/chronyd.conf", str(tmp_path))
