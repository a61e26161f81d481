"""What plugins are given: commands through the monitor, the platform, their state."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import pytest

from uvmd.daemon.environment import Runner, find_platform, states_in
from uvmd.errors import DeadlineExceeded
from uvmd.monitor.link import Completed, Link


class FakeLink:
    """Records what it is asked to run."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, dict[str, Any]]] = []

    def run(self, argv: Any, **options: Any) -> Completed:
        self.asked.append((argv, options))
        return Completed(0, False, b"done", 0)


def test_a_command_is_run_by_the_monitor_in_a_clean_environment_within_its_deadline() -> None:
    link = FakeLink()
    run = Runner(cast(Link, link))
    assert run(["mkfs.ext4", "/dev/x"], deadline=time.monotonic() + 5, stdin=b"y").output == b"done"
    ((argv, options),) = link.asked
    assert argv == ["mkfs.ext4", "/dev/x"]
    assert list(options["env"]) == ["PATH"]
    assert 0 < options["deadline_s"] <= 5


def test_a_deadline_that_has_passed_starts_nothing() -> None:
    link = FakeLink()
    with pytest.raises(DeadlineExceeded, match=r"mkfs\.ext4"):
        Runner(cast(Link, link))(["mkfs.ext4"], deadline=time.monotonic() - 1)
    assert not link.asked


def test_the_platform_is_told_by_the_bus_that_is_there(tmp_path: Path) -> None:
    assert find_platform(str(tmp_path)).name == "virtio"
    (tmp_path / "bus" / "vmbus").mkdir(parents=True)
    assert find_platform(str(tmp_path)).name == "hyperv"


def test_each_distribution_has_a_state_of_its_own(tmp_path: Path) -> None:
    state = states_in(str(tmp_path))
    state("uvmd-one").save({"a": 1})
    assert states_in(str(tmp_path))("uvmd-one").load() == {"a": 1}
    assert state("uvmd-two").load() == {}
