"""Starting the daemon, again and again."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from support.monitor_parts import Parts
from uvmd.monitor import supervisor as supervisor_room
from uvmd.monitor.supervisor import Supervisor


class Nursery:
    """Plays spawner and children."""

    def __init__(self, parts: Parts) -> None:
        self.devnull = os.open("/dev/null", os.O_RDWR)
        self.daemon_pid = 0
        self.spawned: list[Mapping[bytes, bytes]] = []
        self.fail: OSError | None = None
        self.refused: list[int] = []
        self.lost = 0
        self.supervisor = Supervisor(
            parts.loop,
            parts.log,
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            [b"daemon"],
            on_packet=lambda *_: None,
            on_lost=self._lost,
            on_room=lambda: None,
            on_ended=self.refused.append,
        )

    def _lost(self) -> None:
        self.lost += 1

    def spawn(
        self,
        argv: Sequence[bytes],
        env: Mapping[bytes, bytes],
        stdio: tuple[int, int, int],
        fds: Sequence[int],
        **options: Any,
    ) -> int:
        assert stdio == (self.devnull, 2, 2)
        assert options == {"protected": True}
        assert len(fds) == 1
        if self.fail is not None:
            raise self.fail
        self.spawned.append(env)
        return 4711

    def end(self, status: int) -> None:
        self.daemon_pid = 0
        self.supervisor.exited(status)

    def close(self) -> None:
        self.supervisor.restart = False
        if self.supervisor.channel is not None:
            self.supervisor.channel.close()
        os.close(self.devnull)


def test_the_daemon_knows_where_the_link_is(parts: Parts) -> None:
    nursery = Nursery(parts)
    nursery.supervisor.start()
    assert nursery.spawned[0][b"UVMD_MONITOR_FD"] == b"3"
    assert nursery.daemon_pid == 4711
    nursery.supervisor.start()
    assert len(nursery.spawned) == 1
    nursery.close()


@pytest.mark.parametrize(("status", "seen"), [(3, 3), (0, 0), (-9, 137)])
def test_an_end_before_any_greeting_is_a_refusal(parts: Parts, status: int, seen: int) -> None:
    nursery = Nursery(parts)
    nursery.supervisor.start()
    nursery.end(status)
    assert nursery.refused == [seen]
    nursery.close()


def test_a_daemon_that_cannot_be_executed_is_a_refusal(parts: Parts) -> None:
    nursery = Nursery(parts)
    nursery.fail = FileNotFoundError(errno.ENOENT, "daemon")
    nursery.supervisor.start()
    assert nursery.refused == [127]
    nursery.close()


def test_without_a_free_descriptor_it_is_tried_again(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    nursery = Nursery(parts)
    nursery.supervisor.start()
    nursery.supervisor.greeted()
    later: list[Any] = []
    monkeypatch.setattr(parts.loop, "call_later", lambda delay, call: later.append(call))
    nursery.end(-9)

    def full(*_: int) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(supervisor_room._socket, "socketpair", full)
        later.pop()()
    later.pop()()
    assert len(nursery.spawned) == 2
    nursery.close()


def test_pauses_grow_to_five_seconds_and_shrink_again(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    nursery = Nursery(parts)
    supervisor = nursery.supervisor
    supervisor.ever_greeted = True
    delays: list[float] = []
    clock = [0.0]
    fake = SimpleNamespace(
        now=lambda: clock[0],
        call_later=lambda delay_s, _call: delays.append(delay_s),
        watch=lambda *_: None,
        unwatch=lambda *_: None,
    )
    monkeypatch.setattr(supervisor, "_loop", fake)
    for _ in range(8):
        supervisor.start()
        nursery.end(1)
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    supervisor.start()
    supervisor.greeted()
    clock[0] += supervisor_room._SETTLED_S
    nursery.end(1)
    assert delays[-1] == 0.1
    for _ in range(3):
        supervisor.start()
        supervisor.served = True
        nursery.end(1)
    assert delays[-3:] == [0.1, 0.1, 0.1], "one that has served did not die of its start"
    assert nursery.refused == []
    assert supervisor.starts == 12
    nursery.close()


def test_no_daemon_is_started_when_the_end_has_begun(parts: Parts) -> None:
    nursery = Nursery(parts)
    nursery.supervisor.restart = False
    nursery.supervisor.start()
    assert nursery.spawned == []
    nursery.close()


def test_a_daemon_that_closes_its_link_is_killed(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    nursery = Nursery(parts)
    nursery.supervisor.start()
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(supervisor_room.os, "kill", lambda pid, number: killed.append((pid, number)))
    # Our own copy of its end was closed after the start, so the link is at its end already.
    parts.run_until(lambda: killed)
    assert killed == [(4711, 9)]
    assert nursery.lost == 1
    nursery.close()
