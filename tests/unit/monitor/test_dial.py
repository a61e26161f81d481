"""Addresses, and connections made without blocking."""

from __future__ import annotations

import _socket
import errno
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from support.live_monitor import listen
from support.monitor_parts import Parts
from uvmd.monitor import dial


@pytest.mark.parametrize("text", ["vsock:2:1073741824", "unix:/run/host.sock", "unix:/a:b"])
def test_an_address_is_parsed_into_what_it_says(text: str) -> None:
    assert str(dial.parse_target(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "stdio", "unix:", "vsock", "vsock:2", "vsock:2:", "vsock:x:1", "vsock:2:-1", "vsock:2:4294967296"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no address"):
        dial.parse_target(text)


def test_a_base_turns_ports_into_addresses() -> None:
    assert str(dial.parse_base("vsock:7")(5)) == "vsock:7:5"
    assert str(dial.parse_base("unix:/run/host")(5)) == "unix:/run/host_5"
    for text in ("", "vsock", "vsock:x", "unix:", "stdio"):
        with pytest.raises(ValueError, match="no base"):
            dial.parse_base(text)


class Outcome:
    def __init__(self) -> None:
        self.sock: _socket.socket | None = None
        self.error: OSError | None = None

    def done(self, sock: _socket.socket) -> None:
        assert self.sock is None
        self.sock = sock

    def failed(self, error: OSError) -> None:
        assert self.error is None
        self.error = error


def test_a_connection_is_nonblocking_and_close_on_exec(parts: Parts, tmp_path: Path) -> None:
    outcome = Outcome()
    with listen(tmp_path / "s"):
        target = dial.parse_target(f"unix:{tmp_path}/s")
        dial.Dial(parts.loop, target, outcome.done, outcome.failed, deadline_s=5)
        parts.run_until(lambda: outcome.sock)
    assert outcome.sock is not None
    with socket.socket(fileno=outcome.sock.detach()) as sock:
        assert not os.get_blocking(sock.fileno())
        assert not sock.get_inheritable()


def test_a_refusal_fails_at_once_and_names_the_address(parts: Parts, tmp_path: Path) -> None:
    outcome = Outcome()
    dial.Dial(parts.loop, dial.parse_target(f"unix:{tmp_path}/s"), outcome.done, outcome.failed, deadline_s=5)
    parts.run_until(lambda: outcome.error)
    assert outcome.error is not None
    assert outcome.error.errno == errno.ENOENT
    assert f"unix:{tmp_path}/s" in str(outcome.error)


def test_a_full_backlog_is_tried_again_until_the_deadline(parts: Parts, tmp_path: Path) -> None:
    with listen(tmp_path / "s") as listener:
        listener.listen(0)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        waiting[0].connect(str(tmp_path / "s"))
        target = dial.parse_target(f"unix:{tmp_path}/s")
        late, patient = Outcome(), Outcome()
        dial.Dial(parts.loop, target, late.done, late.failed, deadline_s=0.15)
        parts.run_until(lambda: late.error)
        assert late.error is not None
        assert late.error.errno == errno.ETIMEDOUT
        dial.Dial(parts.loop, target, patient.done, patient.failed, deadline_s=5)
        listener.accept()[0].close()
        parts.run_until(lambda: patient.sock)
        assert patient.sock is not None
        patient.sock.close()
        for sock in waiting:
            sock.close()


def test_a_timeout_is_tried_ten_times_and_then_fails(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = []

    class Silent:
        def __init__(self, *_: object) -> None:
            self._sock, self._peer = socket.socketpair()
            attempts.append(1)

        def connect(self, _address: object) -> None:
            raise BlockingIOError(errno.EINPROGRESS, "in progress")

        def getsockopt(self, *_: object) -> int:
            return errno.ETIMEDOUT

        def close(self) -> None:
            self._sock.close()
            self._peer.close()

        def fileno(self) -> int:
            return self._sock.fileno()

        def setblocking(self, _flag: bool) -> None:
            return

    monkeypatch.setattr(dial, "RETRY_S", 0.001)
    target = dial.parse_target("vsock:9:9")
    names = SimpleNamespace(socket=Silent, SOCK_STREAM=1, SOL_SOCKET=1, SO_ERROR=4)
    monkeypatch.setattr(dial, "_socket", names)
    outcome = Outcome()
    dial.Dial(parts.loop, target, outcome.done, outcome.failed, deadline_s=5)
    parts.run_until(lambda: outcome.error)
    assert outcome.error is not None
    assert outcome.error.errno == errno.ETIMEDOUT
    assert len(attempts) == 10


def test_several_are_dialled_in_order_all_or_none(parts: Parts, tmp_path: Path) -> None:
    base = dial.parse_base(f"unix:{tmp_path}/s")
    made: list[list[_socket.socket | None]] = []
    errors: list[OSError] = []
    listeners = [listen(tmp_path / f"s_{port}") for port in (1, 3)]
    dial.DialAll(parts.loop, [base(1), None, base(3)], made.append, errors.append, deadline_s=5)
    parts.run_until(lambda: made)
    first, second, third = made[0]
    assert second is None
    assert first is not None
    assert third is not None
    first.close()
    third.close()
    dial.DialAll(parts.loop, [base(1), base(2), base(3)], made.append, errors.append, deadline_s=5)
    parts.run_until(lambda: errors)
    # The first was made and closed again, the third never tried.
    for _ in range(2):
        connection = listeners[0].accept()[0]
        assert connection.recv(1) == b""
        connection.close()
    listeners[1].accept()[0].close()
    listeners[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        listeners[1].accept()
    for listener in listeners:
        listener.close()


def test_a_cancelled_dial_says_nothing(parts: Parts, tmp_path: Path) -> None:
    outcome = Outcome()
    with listen(tmp_path / "s"):
        target = dial.parse_target(f"unix:{tmp_path}/s")
        dial.Dial(parts.loop, target, outcome.done, outcome.failed, deadline_s=5).cancel()
        dial.DialAll(
            parts.loop, [target], lambda made: pytest.fail("made"), outcome.failed, deadline_s=5
        ).cancel()
        passed: list[int] = []
        parts.loop.call_later(0.02, lambda: passed.append(1))
        parts.run_until(lambda: passed)
    assert (outcome.sock, outcome.error) == (None, None)
