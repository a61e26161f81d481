"""Operations of the link: each one answered, whatever its fields say."""

from __future__ import annotations

import errno
import gc
import os
import resource
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.live_monitor import listen
from support.monitor_parts import Parts, no_descriptors, raise_it
from uvmd.monitor import wire
from uvmd.monitor.answer import Answer, seconds
from uvmd.monitor.bridge import Bridge
from uvmd.monitor.children import Children
from uvmd.monitor.kept import Kept
from uvmd.monitor.programs import Programs
from uvmd.monitor.requests import Requests
from uvmd.monitor.table import SlotTable


class FakeChannel:
    def __init__(self) -> None:
        self.open = True
        self.sent: list[tuple[int, int, tuple[Any, ...]]] = []
        self.fds: list[int] = []

    def send(self, op: int, tag: int, *fields: Any, fds: Sequence[int] = ()) -> None:
        self.sent.append((op, tag, fields))
        self.fds += [os.dup(fd) for fd in fds]


class FakeSpawner:
    """Starts nothing; remembers what it should have started."""

    def __init__(self) -> None:
        self.devnull = os.open("/dev/null", os.O_RDWR)
        self.started: list[tuple[Sequence[bytes], Mapping[bytes, bytes], dict[str, Any]]] = []
        self.fail: OSError | None = None

    def spawn(
        self,
        argv: Sequence[bytes],
        env: Mapping[bytes, bytes],
        stdio: tuple[int, int, int],
        fds: Sequence[int] = (),
        **options: Any,
    ) -> int:
        if self.fail is not None:
            raise self.fail
        self.started.append((argv, env, options))
        return 1_000_000 + len(self.started)


class Desk:
    def __init__(self, parts: Parts, tmp_path: Path) -> None:
        self.parts = parts
        self.channel = FakeChannel()
        self.spawner = FakeSpawner()
        self.finished: list[int] = []
        self.children = Children(raise_it, lambda slot, status: None, lambda status: None)
        self.kept = Kept()
        self.bridge = Bridge(parts.loop, parts.log, self, self.kept)  # type: ignore[arg-type]
        self.table = SlotTable(parts.tools, self.children, lambda slot: None)
        programs = Programs(parts.loop, self.spawner, self.children, self.table)  # type: ignore[arg-type]
        self.requests = Requests(
            parts.tools,
            self.bridge,
            self.table,
            programs,
            self.children,
            self.kept,
            self.finished.append,
        )
        self.host = tmp_path / "host"
        self.ask(wire.STREAM_BASE, f"unix:{self.host}".encode())

    def ask(self, op: int, *fields: Any, fds: Sequence[int] = ()) -> tuple[int, tuple[Any, ...]]:
        """Ask, wait for the answer and return it."""
        self.send(op, *fields, fds=fds)
        self.parts.run_until(lambda: self.channel.sent)
        kind, tag, answer = self.channel.sent.pop(0)
        assert tag == 9
        return kind, answer

    def send(self, op: int, *fields: Any, fds: Sequence[int] = ()) -> None:
        left = list(fds)
        if op in wire.ONCE and len(fields) < len(wire.SHAPES[op] or ""):
            fields = (*fields, 0, b"")
        self.requests.handle(self.channel, op, 9, list(fields), left)  # type: ignore[arg-type]
        for fd in left:
            os.close(fd)

    def code(self, op: int, *fields: Any) -> int:
        """The errno with which a request fails."""
        kind, answer = self.ask(op, *fields)
        assert kind == wire.ERROR
        assert answer[1]
        code: int = answer[0]
        return code

    def bridge_unsent(self, request: int, slot: int, frame: bytes) -> None:
        self.channel.sent.append((wire.BRIDGE_UNSENT, 9, (frame,)))

    def close(self) -> None:
        for number in list(self.table.slots):
            self.table.release(number)
        for fd in (self.spawner.devnull, *self.channel.fds):
            os.close(fd)


@pytest.fixture
def desk(parts: Parts, tmp_path: Path) -> Iterator[Desk]:
    gc.collect()  # of earlier tests: descriptors are counted here
    made = Desk(parts, tmp_path)
    yield made
    made.close()


def run_fields(**changes: Any) -> list[Any]:
    fields = {"argv": [b"x"], "env": [], "cwd": b"/", "stdin": b"", "ns": 10**9}
    return list({**fields, "limit": 9, "slot": 0, "pid": b"", **changes}.values())


def spawn_fields(**changes: Any) -> list[Any]:
    fields = {"slot": 5, "argv": [b"x"], "env": [b"K=V"], "cwd": b"/tmp", "terminal": 0, "p0": -1, "p1": -1}
    rest = {"p2": -1, "discard": 0, "cgroups": [], "ns": 10**9, "label": b"label"}
    return list({**fields, **rest, **changes}.values())


NO_SLOT = 77


@pytest.mark.parametrize(
    ("op", "fields"),
    [
        (wire.CONNECT, (NO_SLOT, 1, 2, 3, 0, 0, 0, 10**9)),
        (wire.KILL, (NO_SLOT, 9)),
        (wire.RESIZE, (NO_SLOT, 1, 1)),
    ],
)
def test_a_slot_that_is_not_there_is_said_so(desk: Desk, op: int, fields: tuple[int, ...]) -> None:
    assert desk.code(op, *fields) == errno.ESRCH


def test_releasing_and_stopping_what_is_not_there_is_nothing(desk: Desk) -> None:
    desk.send(wire.RELEASE, NO_SLOT)
    desk.send(wire.STOP_REDIAL, NO_SLOT)
    desk.send(wire.CLOSE_BRIDGE, 3)
    assert desk.channel.sent == []


@pytest.mark.parametrize("number", [0, -1])
def test_a_slot_has_a_positive_number_of_its_own(desk: Desk, number: int) -> None:
    assert desk.code(wire.OPEN_SLOT, number, 0, b"", b"") == errno.EEXIST
    assert desk.ask(wire.OPEN_SLOT, 4, 0, b"", b"")[0] == wire.REPLY
    assert desk.code(wire.OPEN_SLOT, 4, 0, b"", b"") == errno.EEXIST


def test_a_console_socket_that_cannot_be_made_leaves_no_slot(desk: Desk) -> None:
    assert desk.code(wire.OPEN_SLOT, 4, 1, b"/nonexistent/console", b"") == errno.ENOENT
    assert desk.table.slots == {}


@pytest.mark.parametrize("target", [b"", b"tcp:5", b"unix:", b"\xff\xfe"])
def test_targets_that_are_none_are_invalid(desk: Desk, target: bytes) -> None:
    assert desk.code(wire.OPEN_BRIDGE, target) == errno.EINVAL
    assert desk.code(wire.STREAM_BASE, target) == errno.EINVAL


def test_a_port_that_is_none_is_invalid(desk: Desk) -> None:
    desk.ask(wire.OPEN_SLOT, 4, 0, b"", b"")
    assert desk.code(wire.CONNECT, 4, 1 << 32, -1, -1, 0, 0, 0, 10**9) == errno.EINVAL
    assert desk.code(wire.DIAL, -1, 10**9) == errno.EINVAL
    assert desk.code(wire.SPAWN, *spawn_fields(p0=1 << 40)) == errno.EINVAL
    assert list(desk.table.slots) == [4]


def test_a_dialled_connection_is_handed_over(desk: Desk) -> None:
    with listen(Path(f"{desk.host}_564")) as listener:
        assert desk.ask(wire.DIAL, 564, 10**9) == (wire.REPLY, ())
        with listener.accept()[0] as host, socket.socket(fileno=desk.channel.fds.pop()) as ours:
            ours.sendall(b"x")
            assert host.recv(1) == b"x"
    assert desk.code(wire.DIAL, 565, 10**9) == errno.ENOENT


def test_a_failed_connect_closes_the_tee_file_and_can_be_repeated(desk: Desk) -> None:
    desk.ask(wire.OPEN_SLOT, 4, 0, b"", b"")
    before = len(os.listdir("/proc/self/fd"))
    tee = os.open("/dev/null", os.O_WRONLY)
    kind, answer = desk.ask(wire.CONNECT, 4, 1, -1, -1, 0, 1, 0, 10**9, fds=[tee])
    assert (kind, answer[0]) == (wire.ERROR, errno.ENOENT)
    assert len(os.listdir("/proc/self/fd")) == before
    assert desk.ask(wire.CONNECT, 4, -1, -1, -1, 0, 0, 0, 10**9) == (wire.REPLY, ())
    assert desk.code(wire.CONNECT, 4, -1, -1, -1, 0, 0, 0, 10**9) == errno.EISCONN


@pytest.mark.parametrize("left", [0, 1])
def test_a_tee_file_that_cannot_be_had_twice_costs_nothing_and_is_told(desk: Desk, left: int) -> None:
    desk.ask(wire.OPEN_SLOT, 4, 0, b"", b"")
    with listen(Path(f"{desk.host}_7")):
        tee = os.open("/dev/null", os.O_WRONLY)
        before = len(os.listdir("/proc/self/fd"))
        with no_descriptors() as taken:
            for _ in range(left):
                os.close(taken.pop())
            kind, answer = desk.ask(wire.CONNECT, 4, -1, 7, -1, 0, 1, 0, 10**9, fds=[tee])
        assert (kind, answer[0]) == (wire.ERROR, errno.EMFILE)
        assert len(os.listdir("/proc/self/fd")) == before - 1
    assert desk.table.slots[4].connectable


def test_a_tee_file_goes_with_whatever_ends_its_connect(desk: Desk) -> None:
    desk.ask(wire.OPEN_SLOT, 4, 0, b"", b"")
    before = len(os.listdir("/proc/self/fd"))
    for port, deadline in ((1 << 32, 10**9), (7, 0)):
        tee = os.open("/dev/null", os.O_WRONLY)
        desk.ask(wire.CONNECT, 4, -1, port, -1, 0, 1, 0, deadline, fds=[tee])
        assert len(os.listdir("/proc/self/fd")) == before
    desk.send(wire.CONNECT, 4, -1, 7, -1, 0, 1, 0, 10**9, fds=[os.open("/dev/null", os.O_WRONLY)])
    desk.send(wire.RELEASE, 4)
    assert len(os.listdir("/proc/self/fd")) == before - 6


def test_streams_that_cannot_be_watched_are_told_and_go_with_their_slot(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    desk.ask(wire.OPEN_SLOT, 4, 0, b"", b"")
    tee = os.open("/dev/null", os.O_WRONLY)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    with monkeypatch.context() as patch, listen(Path(f"{desk.host}_7")):
        patch.setattr(desk.parts.loop, "watch", refuse)
        kind, answer = desk.ask(wire.CONNECT, 4, -1, 7, -1, 0, 1, 0, 10**9, fds=[tee])
        assert (kind, answer[0]) == (wire.ERROR, errno.ENOMEM)
    desk.send(wire.RELEASE, 4)
    assert len(os.listdir("/proc/self/fd")) == before


def test_connections_made_for_a_daemon_that_is_gone_are_closed(desk: Desk) -> None:
    desk.ask(wire.OPEN_SLOT, 4, 0, b"", b"")
    with listen(Path(f"{desk.host}_1")) as listener:
        desk.send(wire.CONNECT, 4, 1, -1, -1, 0, 0, 0, 10**9)
        desk.channel.open = False
        desk.parts.run_until(lambda: desk.channel.sent)
        with listener.accept()[0] as host:
            assert host.recv(1) == b""
    assert desk.table.slots[4].connectable


def test_a_program_that_cannot_start_leaves_nothing(desk: Desk) -> None:
    desk.spawner.fail = FileNotFoundError(errno.ENOENT, "x")
    before = len(os.listdir("/proc/self/fd"))
    assert desk.code(wire.RUN, *run_fields(stdin=b"input")) == errno.ENOENT
    assert desk.code(wire.RUN, *run_fields(slot=3, pid=b"/pid")) == errno.ENOENT
    assert desk.code(wire.SPAWN, *spawn_fields()) == errno.ENOENT
    assert desk.code(wire.SPAWN, *spawn_fields(terminal=1)) == errno.ENOENT
    assert desk.table.slots == {}
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_external_process_gets_exactly_its_environment_and_directory(desk: Desk) -> None:
    kind, answer = desk.ask(wire.SPAWN, *spawn_fields(env=[b"LISTEN_FDS=1"], cwd=b"", cgroups=[b"/c"]))
    assert (kind, answer) == (wire.REPLY, (1_000_001,))
    ((argv, env, options),) = desk.spawner.started
    assert (argv, env) == ([b"x"], {b"LISTEN_FDS": b"1"})
    assert options == {"cwd": b"/", "cgroups": [b"/c"]}
    assert desk.table.slots[5].external


def test_a_service_gets_its_limits_and_a_slot_of_its_kind(desk: Desk) -> None:
    limits = [b"data=1000", b"core=0"]
    fields = (5, [b"/x"], [b"A=1", b"WATCHDOG_USEC=1"], limits, b"label")
    assert desk.ask(wire.SERVICE, *fields) == (wire.REPLY, (1_000_001,))
    ((argv, env, options),) = desk.spawner.started
    assert (argv, env) == ([b"/x"], {b"A": b"1"})
    assert options == {"limits": [(resource.RLIMIT_DATA, 1000), (resource.RLIMIT_CORE, 0)]}
    assert wire.decode_slot(desk.table.slots[5].state())[5:7] == (b"label", True)


@pytest.mark.parametrize("limit", [b"", b"data", b"data=", b"data=-1", b"cpu=1", b"data=%d" % 2**63])
def test_limits_that_are_none_start_nothing(desk: Desk, limit: bytes) -> None:
    assert desk.code(wire.SERVICE, 5, [b"/x"], [], [limit], b"label") == errno.EINVAL
    desk.spawner.fail = FileNotFoundError(errno.ENOENT, "x")
    assert desk.code(wire.SERVICE, 5, [b"/x"], [], [], b"label") == errno.ENOENT
    assert desk.table.slots == {}


def test_a_process_without_streams_gets_a_slot_of_its_own(desk: Desk) -> None:
    desk.send(wire.RUN, *run_fields(slot=6, pid=b"/nonexistent"))
    assert list(desk.table.slots) == [6]
    (run,) = desk.children._runs.values()
    desk.children._runs.clear()
    desk.children._finish(run, 1)
    assert desk.channel.sent.pop() == (wire.REPLY, 9, (1, 0, b"", 0))
    assert desk.table.slots == {}


def test_a_process_that_is_gone_cannot_be_signalled(desk: Desk) -> None:
    desk.ask(wire.SPAWN, *spawn_fields())
    desk.table.slots[5].status = 0
    assert desk.code(wire.KILL, 5, 9) == errno.ESRCH


def test_configuration_changes_what_it_names_and_nothing_else(desk: Desk) -> None:
    log, tools, bridge = desk.parts.log, desk.parts.tools, desk.bridge
    desk.send(wire.CONFIGURE, b"text", b"error", -1, -1)
    assert (log.format, log.level, tools.drain_grace_s) == ("text", 40, 10)
    desk.send(wire.CONFIGURE, b"", b"nonsense", 100, 2_500_000_000)
    assert (log.format, log.level, tools.drain_grace_s) == ("text", 40, 2.5)
    assert bridge.max_inbound_bytes == 100


def test_finish_ends_with_an_exit_status(desk: Desk) -> None:
    desk.send(wire.FINISH, 258)
    assert desk.finished == [2]


def test_answers_name_errno_and_text_whatever_the_error_is(desk: Desk) -> None:
    Answer(desk.channel, 9).fail(OSError("only text"))  # type: ignore[arg-type]
    assert desk.channel.sent == [(wire.ERROR, 9, (errno.EIO, b"only text"))]


@pytest.mark.parametrize(("ns", "s"), [(-1, 0), (10**9, 1), (2**63 - 1, 1e8)])
def test_deadlines_are_brought_into_range(ns: int, s: float) -> None:
    assert seconds(ns) == s


HARMLESS = sorted(set(wire.SHAPES) & set(range(wire.OPEN_BRIDGE, wire.REPLY)) - {wire.TAKEN, wire.KILL})


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(op=st.sampled_from(HARMLESS), data=st.data())
def test_no_fields_of_the_right_shape_break_an_operation(desk: Desk, op: int, data: st.DataObject) -> None:
    kinds = {
        "i": st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 12),
        "b": st.binary(max_size=12).map(lambda tail: b"unix:/nonexistent/" + tail) | st.binary(max_size=5),
        "l": st.lists(st.binary(max_size=5), max_size=3),
    }
    desk.requests.handle(
        desk.channel,  # type: ignore[arg-type]
        op,
        9,
        [data.draw(kinds[kind]) for kind in wire.SHAPES[op] or ""],
        [],
    )
    desk.bridge.shut("next example")
    for number in list(desk.table.slots):
        desk.table.release(number)
    desk.channel.sent.clear()


def once(desk: Desk, op: int, *fields: Any, request: int, name: bytes = b"n") -> tuple[int, tuple[Any, ...]]:
    return desk.ask(op, *fields, request, name)


def test_what_is_done_once_for_a_request_is_done_for_the_first_daemon_that_asks(desk: Desk) -> None:
    request = desk.kept.add(1, b"frame")
    for _ in range(2):
        assert once(desk, wire.OPEN_SLOT, 4, 0, b"", b"", request=request.number) == (wire.REPLY, ())
    assert desk.table.slots[4].request == request.number
    pids = {once(desk, wire.SPAWN, *spawn_fields(), request=request.number) for _ in range(3)}
    assert len(pids) == len(desk.spawner.started) == 1
    desk.kept.forget(request.number)
    assert once(desk, wire.OPEN_SLOT, 4, 0, b"", b"", request=request.number)[0] == wire.ERROR


def test_streams_that_are_being_connected_belong_to_the_daemon_that_asks_again(desk: Desk) -> None:
    request = desk.kept.add(1, b"frame")
    desk.ask(wire.OPEN_SLOT, 4, 0, b"", b"")
    with listen(Path(f"{desk.host}_1")) as listener:
        desk.send(wire.CONNECT, 4, 1, -1, -1, 0, 0, 0, 10**9, request.number, b"4")
        desk.channel.open = False
        assert once(desk, wire.CONNECT, 4, 1, -1, -1, 0, 0, 0, 10**9, request=request.number, name=b"4") == (
            wire.REPLY,
            (),
        )
        with listener.accept()[0] as host:
            host.setblocking(False)
            with pytest.raises(BlockingIOError):
                host.recv(1)
    assert not desk.table.slots[4].connectable


def test_what_is_known_of_a_request_waits_for_what_runs_for_it(desk: Desk) -> None:
    request = desk.kept.add(1, b"frame")
    desk.send(wire.NOTE, request.number, b"deleting", b"1")
    desk.send(wire.RUN, *run_fields(), request.number, b"start")
    desk.send(wire.AWAIT, request.number)
    assert desk.channel.sent == []
    (run,) = desk.children._runs.values()
    del desk.children._runs[run.pid]
    desk.children._finish(run, 3)
    desk.children._tell_idle()
    assert desk.channel.sent.pop(0)[2][0] == 3
    answer = desk.channel.sent.pop(0)
    assert answer == (wire.REPLY, 9, ([b"6 start"], [b"deleting", b"1"]))
    desk.send(wire.AWAIT, 5)
    assert desk.channel.sent.pop(0)[2] == ([], [])


def test_a_signal_that_was_sent_for_the_host_is_remembered(desk: Desk) -> None:
    request = desk.kept.add(1, b"frame")
    desk.ask(wire.OPEN_SLOT, 4, 0, b"", b"")
    child = os.posix_spawn("/bin/sleep", ["sleep", "5"], {})
    desk.table.slots[4].pid = child
    for _ in range(2):
        assert once(desk, wire.KILL, 4, 15, request=request.number)[0] == wire.REPLY
    os.waitpid(child, 0)
    assert desk.table.slots[4].signalled == 15
    desk.table.slots[4].status = -15
    assert once(desk, wire.KILL, 4, 15, request=request.number)[0] == wire.REPLY, "that was done"
    assert desk.code(wire.KILL, 4, 15) == errno.ESRCH


def test_a_signal_that_found_nobody_is_sent_when_somebody_is_there(desk: Desk) -> None:
    request = desk.kept.add(1, b"frame")
    desk.ask(wire.OPEN_SLOT, 4, 0, b"", b"")
    kind, answer = once(desk, wire.KILL, 4, 9, request=request.number)
    assert (kind, answer[0]) == (wire.ERROR, errno.ESRCH)
    child = os.posix_spawn("/bin/sleep", ["sleep", "5"], {})
    desk.table.slots[4].pid = child
    assert once(desk, wire.KILL, 4, 9, request=request.number)[0] == wire.REPLY
    os.waitpid(child, 0)
    desk.table.slots[4].status = -9
