"""A real monitor with more descriptors than a child may have, or with none left."""

from __future__ import annotations

import contextlib
import os
import resource
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.live_monitor import LiveMonitor, StandIn, read_all, read_exactly

pytestmark = pytest.mark.system

SOFT, HARD = 1024, 4096
REPORT = "ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj"
REPORTED = b"1024\n4096\n0\n"


def as_outside_of_systemd() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT, HARD))
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("300")


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[LiveMonitor]:
    with LiveMonitor(tmp_path, preexec_fn=as_outside_of_systemd) as monitor:
        yield monitor


def descriptors(monitor: LiveMonitor) -> list[int]:
    return [int(name) for name in os.listdir(f"/proc/{monitor.process.pid}/fd")]


def hold_many(monitor: LiveMonitor, daemon: StandIn) -> None:
    """Have the monitor hold more descriptors than the limit under which it was started."""
    while len(descriptors(monitor)) < SOFT + 76:
        daemon.link.open_slot(daemon.link.new_slot())


@contextlib.contextmanager
def none_left(monitor: LiveMonitor, *, but: int = 0) -> Iterator[None]:
    """Have the monitor at its limit."""
    open_now = descriptors(monitor)
    assert len(open_now) == max(open_now) + 1, "a hole"
    soft, hard = resource.prlimit(monitor.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(monitor.process.pid, resource.RLIMIT_NOFILE, (len(open_now) + but, hard))
    try:
        yield
    finally:
        resource.prlimit(monitor.process.pid, resource.RLIMIT_NOFILE, (soft, hard))


def test_above_the_original_limit_programs_start_and_see_it(limited: LiveMonitor) -> None:
    daemon = limited.start()
    hold_many(limited, daemon)
    call = daemon.link.run(["/bin/sh", "-c", REPORT], env={}, deadline_s=10)
    assert call.output == REPORTED


@pytest.mark.parametrize("joins", [False, True])
@pytest.mark.parametrize("terminal", [False, True])
def test_above_the_original_limit_processes_start_and_see_it(
    limited: LiveMonitor, tmp_path: Path, joins: bool, terminal: bool
) -> None:
    (tmp_path / "cgroup.procs").touch()
    daemon, listener = limited.start(), limited.listen(2)
    hold_many(limited, daemon)
    daemon.link.spawn(
        daemon.link.new_slot(),
        ["/bin/sh", "-c", REPORT],
        env={},
        cwd="/",
        terminal=terminal,
        ports=(None, 2, None),
        cgroups=[str(tmp_path)] if joins else [],
    )
    host = limited.accept(listener)
    assert read_all(host).replace(b"\r\n", b"\n") == REPORTED
    assert (tmp_path / "cgroup.procs").read_bytes() == (b"0" if joins else b"")


def test_above_the_original_limit_the_next_daemon_starts_and_is_protected(limited: LiveMonitor) -> None:
    daemon = limited.start()
    hold_many(limited, daemon)
    os.kill(daemon.pid, 9)
    pid = limited.next_daemon().pid
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "300\n"
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (SOFT, HARD)


@pytest.mark.parametrize("size", [100, 62_000, 70_000, 1_000_000])
def test_without_descriptors_requests_and_answers_of_any_size_pass(monitor: LiveMonitor, size: int) -> None:
    daemon, listener = monitor.start(), monitor.listen()
    daemon.link.open_bridge(f"unix:{monitor.host}")
    host = monitor.accept(listener)
    daemon.events.wait_for("up")
    frame = struct.pack("<IIQ", 0x10100A01, 16 + size, 2) + bytes(size)
    with none_left(monitor):
        host.sendall(frame)
        _, generation, came, request = daemon.events.wait_for("frame")
        assert came == frame
        daemon.link.send_frame(generation, frame, request)
        assert read_exactly(host, len(frame)) == frame
        with pytest.raises(OSError, match="no slot"):
            daemon.link.resize(99, 1, 1)


@pytest.mark.parametrize("left", [0, 2])
def test_without_a_descriptor_for_its_copy_a_tee_file_is_refused_and_given_back(
    monitor: LiveMonitor, tmp_path: Path, left: int
) -> None:
    daemon, listener = monitor.start(), monitor.listen(2)
    slot = daemon.link.new_slot()
    before = len(descriptors(monitor))
    daemon.link.open_slot(slot)
    with open(tmp_path / "tee", "wb") as tee:
        with none_left(monitor, but=left), pytest.raises(OSError, match="Too many open files"):
            daemon.link.connect(slot, (None, 2, None), tee_fd=tee.fileno())
        assert len(descriptors(monitor)) == before + 6
        daemon.link.connect(slot, (None, 2, None), tee_fd=tee.fileno())
    monitor.accept(listener).close()
    daemon.link.release(slot)
    daemon.link.run(["/bin/true"], env={}, deadline_s=10)
    assert len(descriptors(monitor)) == before


def test_without_descriptors_what_the_daemon_had_is_enough_for_the_next_one(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    with none_left(monitor):
        os.kill(daemon.pid, 9)
        assert monitor.next_daemon().greet().daemon_starts == 2
