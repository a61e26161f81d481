"""Helper processes of plugins: started by the monitor, found again by their labels."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from uvmd.api import Limits
from uvmd.daemon.services import Services
from uvmd.monitor.link import Link, MonitorState, SlotState


class FakeLink:
    """Holds the listening sockets, as the processes would."""

    def __init__(self) -> None:
        self.running: dict[int, socket.socket] = {}
        self.asked: list[dict[str, Any]] = []
        self.killed: list[tuple[int, int]] = []
        self.released: list[int] = []

    def new_slot(self) -> int:
        return 7 + len(self.asked)

    def service(self, slot: int, argv: Sequence[str], *, fds: Sequence[int], **options: Any) -> int:
        self.asked.append({"argv": argv, **options})
        self.running[slot] = socket.socket(fileno=os.dup(fds[0]))
        return 1

    def kill(self, slot: int, number: int) -> None:
        self.killed.append((slot, number))
        if slot not in self.running:
            raise ProcessLookupError
        self.running.pop(slot).close()

    def release(self, slot: int) -> None:
        self.released.append(slot)


@pytest.fixture
def link() -> Iterator[FakeLink]:
    made = FakeLink()
    yield made
    for held in made.running.values():
        held.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # Longer than any socket's address may be.
    return tmp_path / ("x" * 120) / "services"


def services(link: FakeLink, folder: Path) -> Services:
    return Services(cast(Link, link), str(folder))


def soon() -> float:
    return time.monotonic() + 5


def test_a_service_is_reached_over_a_socket_that_only_we_can_find(link: FakeLink, folder: Path) -> None:
    service = services(link, folder).of("uvmd-thing")("one", ["/bin/one"], Limits(1 << 20))
    with pytest.raises(FileNotFoundError):
        service.connect(soon())
    service.start()
    assert folder.stat().st_mode & 0o777 == 0o700
    (asked,) = link.asked
    assert (asked["argv"], asked["label"]) == (["/bin/one"], "uvmd-thing.one")
    assert asked["limits"] == {"data": 1 << 20, "nofile": 32, "core": 0, "fsize": 0}
    with socket.socket(fileno=service.connect(soon())) as ours, link.running[7].accept()[0] as theirs:
        assert not os.get_inheritable(ours.fileno())
        ours.sendall(b"x")
        assert theirs.recv(1) == b"x"


def test_starting_again_ends_the_one_that_runs(link: FakeLink, folder: Path) -> None:
    service = services(link, folder).of("d")("one", ["/bin/one"], Limits(1 << 20))
    service.start()
    service.start()
    assert link.killed == [(7, signal.SIGKILL)]
    assert link.released == [7]
    service.kill()
    service.kill()
    assert link.released == [7, 8]
    with pytest.raises(FileNotFoundError):
        service.connect(soon())
    assert list(folder.iterdir()) == []


def test_a_later_daemon_finds_the_process_and_may_end_it(link: FakeLink, folder: Path) -> None:
    services(link, folder).of("d")("one", ["/bin/one"], Limits(1 << 20)).start()
    later = services(link, folder)
    later.take_up(MonitorState(1, (), 2, (SlotState(7, 1, None, False, False, "d.one"),)))
    service = later.of("d")("one", ["/bin/one"], Limits(1 << 20))
    assert later.of("d")("one", ["/bin/one"], Limits(1 << 20)) is service
    socket.socket(fileno=service.connect(soon())).close()
    service.kill()
    assert link.killed == [(7, signal.SIGKILL)]


def test_a_process_that_ended_by_itself_is_let_go(link: FakeLink, folder: Path) -> None:
    service = services(link, folder).of("d")("one", ["/bin/one"], Limits(1 << 20))
    service.start()
    link.running.pop(7).close()
    service.kill()
    assert link.released == [7]


def test_no_socket_is_left_behind(link: FakeLink, folder: Path) -> None:
    all_of_them = services(link, folder)
    all_of_them.end()
    all_of_them.of("d")("one", ["/bin/one"], Limits(1 << 20)).start()
    all_of_them.end()
    assert not folder.exists()
