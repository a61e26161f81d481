"""A daemon that is no child: let in, seen to end, the next one let in; the rest is in tests/wire."""

from __future__ import annotations

import os
import select
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.monitor_parts import Parts, QuietLog
from uvmd.monitor import attached as room
from uvmd.monitor.attached import Attached


class Gate:
    """An ``Attached``, with pidfds that the test ends by hand: every peer is this very process."""

    def __init__(self, parts: Parts, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = folder / "link"
        self.daemon_pid = 0
        self.ended = 0
        self.lost = 0
        self.spawned: list[tuple[Any, Any]] = []
        self.pidfds: list[tuple[int, int]] = []
        self.killed: list[int] = []
        monkeypatch.setattr(room.os, "pidfd_open", self._pidfd)
        monkeypatch.setattr(room.signal, "pidfd_send_signal", lambda fd, number: self.killed.append(number))
        self.attached = Attached(
            parts.loop,
            parts.log,
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            (),
            on_packet=lambda *_: None,
            on_lost=self._lost,
            on_room=lambda: None,
            on_ended=self._ended,
        )
        self.attached.listen(os.fsencode(self.path))
        self.attached.start()
        self.devnull = os.open("/dev/null", os.O_RDWR)

    def _pidfd(self, _pid: int) -> int:
        pair = os.pipe()
        self.pidfds.append(pair)
        return pair[0]

    def _lost(self) -> None:
        self.lost += 1

    def _ended(self, status: int) -> None:
        self.ended += 1
        self.attached.exited(status)

    def spawn(self, argv: Any, env: Any, *_: Any, **__: Any) -> int:
        self.spawned.append((argv, env))
        return 4711

    def connect(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        made.connect(str(self.path))
        return made

    def end_daemon(self) -> None:
        """Have its process end: its pidfd becomes readable."""
        os.write(self.pidfds[-1][1], b"x")

    def close(self) -> None:
        self.attached.restart = False
        if self.attached.channel is not None:
            self.attached.channel.close()
        os.close(self.devnull)
        os.close(self.attached._claim)
        self.attached._listener.close()
        for _, write_end in self.pidfds:
            os.close(write_end)
        if self.attached._pidfd >= 0:
            os.close(self.attached._pidfd)


@pytest.fixture
def gate(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate(parts, tmp_path, monkeypatch)
    yield made
    made.close()


def is_closed(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0]) and sock.recv(1) == b""


def said(parts: Parts, words: str) -> bool:
    assert isinstance(parts.log, QuietLog)
    return any(words in line for line in parts.log.lines)


def test_the_socket_is_for_its_owner_alone(gate: Gate) -> None:
    assert stat.S_IMODE(gate.path.stat().st_mode) == 0o600


def test_one_daemon_is_let_in_and_a_second_turned_away(gate: Gate, parts: Parts) -> None:
    with gate.connect() as first:
        parts.run_until(lambda: gate.attached.channel)
        with gate.connect() as second:
            parts.run_until(lambda: is_closed(second))
        assert said(parts, "there is a daemon already")
        assert not is_closed(first)
        assert gate.attached.alive


def test_nobody_is_let_in_once_the_end_has_begun(gate: Gate, parts: Parts) -> None:
    gate.attached.restart = False
    with gate.connect() as late:
        parts.run_until(lambda: is_closed(late))
    assert said(parts, "the end has begun")


@pytest.mark.parametrize("strange", ["user", "mounts"])
def test_a_stranger_is_turned_away(
    gate: Gate, parts: Parts, monkeypatch: pytest.MonkeyPatch, strange: str
) -> None:
    if strange == "user":
        monkeypatch.setattr(room.os, "geteuid", lambda: os.getuid() + 1)
    else:
        own = os.stat
        monkeypatch.setattr(room.os, "stat", lambda path: own("/" if "self" in path else path))
    with gate.connect() as stranger:
        parts.run_until(lambda: is_closed(stranger))
    assert said(parts, "it is user" if strange == "user" else "a mount namespace of its own")
    assert not gate.attached.alive


def test_the_next_daemon_is_let_in_though_the_end_of_the_last_was_not_seen_yet(
    gate: Gate, parts: Parts
) -> None:
    with gate.connect():
        parts.run_until(lambda: gate.attached.channel)
        before = gate.attached.channel
        gate.end_daemon()
        with gate.connect():
            parts.run_until(lambda: gate.attached.channel not in (None, before))
    assert (gate.ended, gate.lost) == (1, 1)


def test_a_daemon_that_has_left_its_link_and_stays_is_killed(
    gate: Gate, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LEAVING_S", 0)
    with gate.connect():
        parts.run_until(lambda: gate.attached.channel)
    parts.run_until(lambda: gate.killed)
    assert gate.killed == [signal.SIGKILL]


def test_the_time_that_one_daemon_had_to_leave_is_not_the_next_ones(
    gate: Gate, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LEAVING_S", 0.5)
    with gate.connect():
        parts.run_until(lambda: gate.attached.channel)
    parts.run_until(lambda: gate.attached.channel is None)
    due = time.monotonic() + 0.5
    gate.end_daemon()
    parts.run_until(lambda: not gate.attached.alive)
    monkeypatch.setattr(room, "LEAVING_S", 60)
    with gate.connect():
        parts.run_until(lambda: gate.attached.channel)
    assert gate.pidfds[0][0] == gate.pidfds[1][0], "a descriptor's number is used again"
    parts.run_until(lambda: gate.attached.channel is None and time.monotonic() > due + 0.1)
    assert gate.killed == []


def test_only_a_greeting_counts_as_a_start(gate: Gate, parts: Parts) -> None:
    for greets in (False, True):
        with gate.connect():
            parts.run_until(lambda: gate.attached.channel)
            if greets:
                gate.attached.greeted()
                gate.attached.greeted()
            gate.end_daemon()
            parts.run_until(lambda: not gate.attached.alive)
    assert gate.attached.starts == 1


def test_the_last_daemon_is_started_as_the_one_before_it_and_once(gate: Gate) -> None:
    how = ([b"python", b"-m", b"daemon"], [b"A=1", b"NOTIFY_SOCKET=/x", b"UVMD_MONITOR_SOCKET=/y"])
    assert not gate.attached.start_last(None)
    assert gate.attached.start_last(how)
    assert gate.spawned == [(how[0], {b"A": b"1", b"UVMD_MONITOR_FD": b"3"})]
    gate.daemon_pid = 0
    assert not gate.attached.start_last(how)


def test_one_that_is_on_its_way_out_is_waited_for(gate: Gate, parts: Parts) -> None:
    with gate.connect():
        parts.run_until(lambda: gate.attached.channel)
        assert gate.attached.start_last(None)
    assert gate.spawned == []


def test_a_second_monitor_at_the_path_is_refused(gate: Gate) -> None:
    with pytest.raises(OSError, match="there is a monitor already"):
        room._claim(os.fsencode(gate.path))
