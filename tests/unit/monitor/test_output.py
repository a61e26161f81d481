"""The relay of one output, from a pipe in the test to a socket in the test."""

from __future__ import annotations

import _socket
import errno
import os
import random
import select
import socket
from pathlib import Path

import pytest

from support.live_monitor import listen
from support.monitor_parts import Parts, nonblocking_pipe, read_available
from uvmd.monitor import output as output_room
from uvmd.monitor import redial
from uvmd.monitor.dial import Target, parse_target
from uvmd.monitor.history import SIZE_BYTES
from uvmd.monitor.output import Output


def core_socket(sock: socket.socket) -> _socket.socket:
    """The plain socket that the monitor works with, of the same connection."""
    sock.setblocking(False)
    return _socket.socket(fileno=sock.detach())


class Stream:
    def __init__(
        self, parts: Parts, *, connected: bool = True, tee: int = -1, redial: Target | None = None
    ) -> None:
        self.parts = parts
        read_end, self.write_end = nonblocking_pipe()
        ours, self.host = socket.socketpair()
        self.host.setblocking(False)
        self.done: list[int] = []
        connection: _socket.socket | None = core_socket(ours)
        if not connected:
            assert connection is not None
            connection.close()
            connection = None
        self.output = Output(
            parts.tools, "test", read_end, connection, lambda: self.done.append(1), tee=tee, redial=redial
        )
        self.output.start()

    def write(self, data: bytes) -> None:
        """Write all of it, as the container would, while the host reads."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self.write_end, view) :]
            except BlockingIOError:
                self.parts.run_until(self.writable)

    def writable(self) -> bool:
        try:
            os.write(self.write_end, b"")
        except BlockingIOError:
            return False
        return bool(select.select([], [self.write_end], [], 0)[1])

    def end(self) -> None:
        os.close(self.write_end)


@pytest.mark.parametrize("way", ["splice", "remember", "copy", "tee"])
def test_every_way_through_the_relay_is_byte_exact(parts: Parts, tmp_path: Path, way: str) -> None:
    tee = os.open(tmp_path / "tee", os.O_CREAT | os.O_RDWR) if way == "tee" else -1
    target = parse_target(f"unix:{tmp_path}/s") if way == "remember" else None
    stream = Stream(parts, tee=tee, redial=target)
    if way == "copy":
        stream.output._copying = True
    chooser = random.Random(way)
    expected, received = b"", b""
    for _ in range(60):
        chunk = chooser.randbytes(chooser.choice([1, 100, 4096, 30_000, 65_536]))
        expected += chunk
        view = memoryview(chunk)
        while view:
            try:
                view = view[os.write(stream.write_end, view) :]
            except BlockingIOError:
                pass
            if chooser.random() < 0.7:
                received += read_available(stream.host)
            rounds: list[int] = []
            parts.loop.soon(lambda rounds=rounds: rounds.append(1))  # type: ignore[misc]
            parts.run_until(lambda rounds=rounds: rounds)  # type: ignore[misc]
    stream.end()

    def finished() -> bool:
        nonlocal received
        received += read_available(stream.host)
        return len(received) == len(expected)

    parts.run_until(finished)
    assert received == expected
    assert not stream.done
    stream.host.close()
    parts.run_until(lambda: stream.done)
    if way == "tee":
        assert (tmp_path / "tee").read_bytes() == expected


def test_a_socket_that_cannot_be_spliced_to_is_copied_to(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EINVAL, "splice")

    monkeypatch.setattr(output_room.os, "splice", refuse)
    stream = Stream(parts)
    os.write(stream.write_end, b"all the same")
    received: list[bytes] = []
    parts.run_until(lambda: received.append(read_available(stream.host)) or b"".join(received))  # type: ignore[func-returns-value]
    assert b"".join(received) == b"all the same"
    stream.end()
    stream.host.close()
    parts.run_until(lambda: stream.done)


@pytest.mark.parametrize("copying", [False, True])
@pytest.mark.parametrize("code", [errno.ENOMEM, errno.ENOBUFS])
def test_a_kernel_without_memory_for_a_moment_costs_no_byte(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, code: int, copying: bool
) -> None:
    stream, lacking, splice = Stream(parts), [1, 1], os.splice
    stream.output._copying = copying

    def refuse(*arguments: object, **options: object) -> int:
        if lacking:
            raise OSError(lacking.pop() and code, "no memory")
        return splice(*arguments, **options)  # type: ignore[arg-type]

    class Lacking:
        """The connection, without memory for a moment."""

        def __init__(self, real: _socket.socket) -> None:
            self._real = real

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

        def send(self, chunk: bytes) -> int:
            if lacking:
                raise OSError(lacking.pop() and code, "no memory")
            return self._real.send(chunk)

    monkeypatch.setattr(output_room.os, "splice", refuse)
    assert stream.output._connection is not None
    stream.output._connection = Lacking(stream.output._connection)  # type: ignore[assignment]
    os.write(stream.write_end, b"all the same")
    received: list[bytes] = []
    parts.run_until(lambda: received.append(read_available(stream.host)) or b"".join(received))  # type: ignore[func-returns-value]
    assert (b"".join(received), lacking) == (b"all the same", [])
    stream.end()
    stream.host.close()
    parts.run_until(lambda: stream.done)


@pytest.mark.parametrize("copying", [False, True])
def test_without_a_descriptor_for_its_history_a_stream_goes_on_and_leaves_others_nothing(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copying: bool
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    target = parse_target(f"unix:{tmp_path}/s")
    first, second = Stream(parts, redial=target), Stream(parts, redial=target)
    first.output._copying = copying
    with monkeypatch.context() as patch:
        patch.setattr(os, "memfd_create", refuse)
        os.write(first.write_end, b"a secret of the first")
        parts.run_until(lambda: read_available(first.host) == b"a secret of the first")
    os.write(second.write_end, b"of the second")
    parts.run_until(lambda: read_available(second.host) == b"of the second")
    os.write(first.write_end, b", and on")
    parts.run_until(lambda: read_available(first.host) == b", and on")
    for stream, remembered in ((first, b", and on"), (second, b"of the second")):
        assert stream.output._redial is not None
        assert stream.output._redial.history.read() == remembered
        stream.output.close()
        stream.host.close()
        stream.end()


def test_without_a_connection_everything_is_read_and_nothing_is_wanted(parts: Parts) -> None:
    stream = Stream(parts, connected=False)
    assert not stream.output.wanted
    stream.write(bytes(500_000))
    stream.end()
    parts.run_until(lambda: stream.done)
    stream.host.close()


def test_a_failed_connection_skips_its_chunk_in_the_tee_file(parts: Parts, tmp_path: Path) -> None:
    stream = Stream(parts, tee=os.open(tmp_path / "tee", os.O_CREAT | os.O_WRONLY))
    stream.write(b"first ")
    parts.run_until(lambda: read_available(stream.host))
    stream.host.close()
    stream.write(b"lost ")
    parts.run_until(lambda: stream.output._connection is None)
    stream.write(b"last")
    stream.end()
    parts.run_until(lambda: stream.done)
    assert (tmp_path / "tee").read_bytes() == b"first last"


def test_a_tee_file_that_cannot_be_written_costs_only_itself(parts: Parts) -> None:
    stream = Stream(parts, tee=os.open("/dev/full", os.O_WRONLY))
    stream.write(b"to the host")
    received: list[bytes] = []
    parts.run_until(lambda: received.append(read_available(stream.host)) or b"".join(received))  # type: ignore[func-returns-value]
    assert any("tee file" in line for line in parts.log.lines)
    stream.end()
    stream.host.close()
    parts.run_until(lambda: stream.done)


def test_while_the_host_is_away_nothing_is_read_and_then_all_is_sent(parts: Parts, tmp_path: Path) -> None:
    target = parse_target(f"unix:{tmp_path}/s")
    stream = Stream(parts, redial=target)
    sent = random.Random(3).randbytes(200_000)
    received = b""
    for at in range(0, len(sent), 50_000):
        os.write(stream.write_end, sent[at : at + 50_000])
        before = len(received)

        def arrived(before: int = before) -> bool:
            nonlocal received
            received += read_available(stream.host)
            return len(received) == before + 50_000

        parts.run_until(arrived)
    stream.host.close()
    os.write(stream.write_end, b"while away")
    parts.run_until(lambda: stream.output._redialling)
    with listen(tmp_path / "s") as listener:
        listener.setblocking(False)
        hosts: list[socket.socket] = []

        def accepted() -> bool:
            try:
                hosts.append(listener.accept()[0])
            except BlockingIOError:
                return False
            return True

        parts.run_until(accepted)
    hosts[0].setblocking(False)
    again = b""

    def replayed() -> bool:
        nonlocal again
        again += read_available(hosts[0])
        return len(again) == SIZE_BYTES + 10

    parts.run_until(replayed)
    assert again == sent[-SIZE_BYTES:] + b"while away"
    stream.end()
    hosts[0].close()
    parts.run_until(lambda: stream.done)


def test_refusals_end_the_stream_only_once_the_process_is_gone(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redial, "REFUSED_S", 0.05)
    monkeypatch.setattr(redial, "RETRY_S", 0.005)
    stream = Stream(parts, redial=parse_target(f"unix:{tmp_path}/s"))
    stream.host.close()
    os.write(stream.write_end, b"x")
    parts.run_until(lambda: stream.output._redialling)
    passed: list[int] = []
    parts.loop.call_later(0.1, lambda: passed.append(1))
    parts.run_until(lambda: passed)
    assert stream.output.wanted
    stream.output.process_gone(parts.loop.now())
    parts.run_until(lambda: not stream.output.wanted)
    stream.write(bytes(100_000))
    stream.end()
    parts.run_until(lambda: stream.done)


def test_stopping_the_redial_drops_what_is_left(parts: Parts, tmp_path: Path) -> None:
    stream = Stream(parts, redial=parse_target(f"unix:{tmp_path}/s"))
    stream.host.close()
    os.write(stream.write_end, b"x")
    parts.run_until(lambda: stream.output._redialling)
    stream.output.stop_redial()
    stream.output.stop_redial()
    stream.write(bytes(100_000))
    stream.end()
    parts.run_until(lambda: stream.done)


def test_a_silent_descendant_is_given_the_grace_and_no_more(parts: Parts) -> None:
    parts.tools.drain_grace_s = 0.05
    stream = Stream(parts)
    stream.output.process_gone(parts.loop.now())
    assert stream.output.check_grace() > 0
    passed: list[int] = []
    parts.loop.call_later(0.06, lambda: passed.append(1))
    parts.run_until(lambda: passed)
    assert not stream.done
    stream.output.check_grace()
    stream.host.close()
    parts.run_until(lambda: stream.done)
    stream.end()


def test_a_host_that_does_not_read_is_no_silent_descendant(parts: Parts) -> None:
    parts.tools.drain_grace_s = 0.01
    stream = Stream(parts)
    os.set_blocking(stream.write_end, False)
    with pytest.raises(BlockingIOError):
        for _ in range(100):
            os.write(stream.write_end, bytes(65_536))
            rounds: list[int] = []
            parts.loop.call_later(0.001, lambda rounds=rounds: rounds.append(1))  # type: ignore[misc]
            parts.run_until(lambda rounds=rounds: rounds)  # type: ignore[misc]
    stream.output.process_gone(parts.loop.now())
    passed: list[int] = []
    parts.loop.call_later(0.05, lambda: passed.append(1))
    parts.run_until(lambda: passed)
    stream.output.check_grace()
    assert not stream.done
    assert stream.output._source >= 0
    stream.output.close()
    stream.host.close()
    stream.end()


def test_an_unexpected_error_ends_the_stream_instead_of_losing_the_exit(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Stream(parts)

    def fail(_self: Output) -> int:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Output, "_move", fail)
    os.write(stream.write_end, b"x")
    parts.run_until(lambda: stream.done)
    assert any("a bug" in line for line in parts.log.lines)
    stream.host.close()
    stream.end()
