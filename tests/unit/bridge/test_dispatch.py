"""Which request runs when: lanes, limits, and one at a time where the hardware asks for it."""

from __future__ import annotations

import logging

import pytest

from support.fake_host import FOREVER_MS, FakeHost
from support.peer import Peer
from uvmd.bridge import dispatch
from uvmd.bridge.dispatch import OPERATIONS
from uvmd.bridge.hresult import name_of
from uvmd.bridge.identifiers import PROTOCOL_VERSION, Message


def step(host: Peer) -> None:
    """Let the pools finish what they hold, and the poll thread hear of it."""
    host.fake.pools.work.run_all()
    host.fake.pools.control.run_all()
    host.fake.pools.find.run_all()
    host.fake.timers.run_posted()


def answered(host: Peer, *ids: int) -> list[bool]:
    return [bool(host.answers(id_)) for id_ in ids]


def wait(host: Peer, pid: int) -> int:
    return host.post_fields(Message.WAIT, ProcessId=pid, TimeoutInMs=FOREVER_MS)


def test_slow_work_holds_up_neither_control_nor_waits(host: Peer) -> None:
    pid = host.create()
    host.fake.pools.work.held = True
    create = host.post_fields(Message.CREATE, ContainerConfig="{}")
    signal = host.post_fields(Message.SIGNAL, ProcessId=pid)
    start = host.post_fields(Message.START)
    assert answered(host, create, signal, start) == [False, True, True]
    host.fake.pools.work.run_all()
    assert answered(host, create) == [True]


def test_who_reads_a_request_serves_it_while_others_go_to_the_pools(host: Peer) -> None:
    host.fake.pools.own.takes = True
    host.fake.pools.find.held = host.fake.pools.work.held = True
    first, second = host.post_fields(Message.DELETE), host.post_fields(Message.DELETE)
    wait = host.post_fields(Message.WAIT, ContainerId="x", TimeoutInMs=0)
    assert answered(host, first, second, wait) == [False, False, True]
    host.fake.pools.own.serve()
    assert answered(host, first, second) == [True, False]
    step(host)
    assert answered(host, first, second) == [True, True]


def test_the_lanes_are_those_of_the_design() -> None:
    lanes = {message: operation.lane for message, operation in OPERATIONS[PROTOCOL_VERSION].items()}
    work = {Message.CREATE, Message.EXECUTE, Message.DELETE}
    inline = {Message.START, Message.WAIT}
    assert {message for message, lane in lanes.items() if lane is dispatch.WORK} == work
    assert {message for message, lane in lanes.items() if lane is dispatch.INLINE} == inline
    assert [message for message, lane in lanes.items() if lane is dispatch.FIND] == [Message.MODIFY]
    assert len(lanes) == 12


def test_a_full_queue_answers_busy_at_once(host: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "MAX_OPEN", 3)
    host.fake.pools.work.held = True
    ids = [host.post_fields(Message.DELETE) for _ in range(5)]
    assert answered(host, *ids) == [False, False, False, True, True]
    (busy,) = host.answers(ids[-1])
    assert name_of(busy["Result"]) == "E_FAIL"
    assert "busy" in busy["ErrorMessage"]
    host.fake.pools.work.run_all()
    assert host.code(Message.START) == "S_OK"
    assert all(answered(host, *ids))


def test_the_bytes_of_queued_bodies_are_bounded(host: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "MAX_OPEN_BYTES", 1000)
    host.fake.pools.work.held = True
    ids = [host.post_fields(Message.DELETE, padding="x" * 400) for _ in range(3)]
    assert answered(host, *ids) == [False, False, True]
    host.fake.pools.work.run_all()
    host.fake.pools.work.held = False
    assert host.code(Message.DELETE, padding="x" * 400) == "SYSTEM_NOT_FOUND"


def test_waits_have_a_bound_of_their_own(host: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "MAX_WAITS", 2)
    pid = host.create()
    ids = [wait(host, pid) for _ in range(3)]
    assert answered(host, *ids) == [False, False, True]
    host.fake.exit_init("c", 0)
    assert all(answered(host, *ids))
    assert host.answers(wait(host, pid))[0]["ExitCode"] == 0


def test_a_pool_that_cannot_start_a_thread_is_an_answer(host: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    def submit(*arguments: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(host.fake.pools.work, "submit", submit)
    assert host.code(Message.DELETE) == "E_FAIL"


def test_sequential_requests_run_one_at_a_time_in_order(sequential: Peer) -> None:
    ids = [sequential.post_fields(Message.DELETE, container_id=name) for name in "abc"]
    start = sequential.post_fields(Message.START)
    step(sequential)
    assert answered(sequential, *ids, start) == [True, False, False, False]
    step(sequential)
    assert answered(sequential, *ids, start) == [True, True, False, False]
    step(sequential)
    assert all(answered(sequential, *ids, start))
    assert [call[1] for call in sequential.fake.calls if call[0] == "delete"] == ["a", "b", "c"]


def test_a_wait_waits_for_its_turn_and_then_holds_up_nobody(sequential: Peer) -> None:
    sequential.fake.pools.work.held = False
    pid = sequential.create()
    sequential.fake.timers.run_posted()
    sequential.fake.pools.work.held = True
    delete = sequential.post_fields(Message.DELETE, container_id="other")
    pending = wait(sequential, pid)
    start = sequential.post_fields(Message.START)
    assert not any(call[0] == "wait" for call in sequential.fake.calls)
    step(sequential)
    assert answered(sequential, delete, pending, start) == [True, False, True]
    sequential.fake.exit_init("c", 4)
    assert sequential.answers(pending)[0]["ExitCode"] == 4


def test_one_at_a_time_holds_over_all_connections(sequential: Peer) -> None:
    old = sequential.post_fields(Message.DELETE, container_id="a")
    sequential.disconnect()
    sequential.connect(negotiate=False)
    negotiate = sequential.post_fields(Message.NEGOTIATE, container_id="", MinimumVersion=4, MaximumVersion=4)
    assert answered(sequential, old, negotiate) == [False, False]
    step(sequential)
    assert answered(sequential, negotiate, old) == [True, True]
    generations = [generation for generation, frame in sequential.sent if frame.id in (old, negotiate)]
    assert generations == [2, 2]


def test_a_negotiation_of_a_lost_connection_is_not_answered_on_the_next(sequential: Peer) -> None:
    sequential.post_fields(Message.DELETE, container_id="a")
    sequential.disconnect()
    sequential.connect(negotiate=False)
    lost = sequential.post_fields(Message.NEGOTIATE, container_id="", MinimumVersion=4, MaximumVersion=4)
    sequential.disconnect()
    sequential.connect(negotiate=False)
    step(sequential)
    assert answered(sequential, lost) == [False]
    assert sequential.code(Message.START) == "E_NOTIMPL"


def test_a_request_that_takes_long_is_told_once(sequential: Peer, caplog: pytest.LogCaptureFixture) -> None:
    sequential.post_fields(Message.DELETE, container_id="a")
    with caplog.at_level(logging.WARNING):
        sequential.fake.timers.pass_s(5)
        sequential.fake.timers.pass_s(5)
    (record,) = caplog.records
    assert record.__dict__["operation"] == "delete"
    assert record.__dict__["message_id"] == sequential.next_id


def test_a_quick_request_is_not_told(sequential: Peer, caplog: pytest.LogCaptureFixture) -> None:
    sequential.post_fields(Message.DELETE, container_id="a")
    step(sequential)
    with caplog.at_level(logging.WARNING):
        sequential.fake.timers.pass_s(5)
    assert caplog.records == []


def test_a_sequential_queue_is_bounded_too(sequential: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "MAX_OPEN", 2)
    ids = [sequential.post_fields(Message.DELETE) for _ in range(3)]
    assert answered(sequential, *ids) == [False, False, True]
    step(sequential)
    step(sequential)
    assert all(answered(sequential, *ids))


def test_a_power_off_ends_the_queue(sequential: Peer) -> None:
    sequential.fake.agent = True
    null_id = "00000000-0000-0000-0000-000000000000"
    sequential.post_fields(Message.SHUTDOWN_FORCED, container_id=null_id)
    later = sequential.post_fields(Message.START)
    step(sequential)
    assert answered(sequential, later) == [False]


def test_pools_of_a_negotiated_host_are_used_only_for_work_that_blocks() -> None:
    host = Peer(FakeHost())
    host.fake.pools.work.held = host.fake.pools.control.held = True
    host.connect()
    assert host.code(Message.START) == "S_OK"
    assert host.code(Message.WAIT, ProcessId=1) == "SYSTEM_NOT_FOUND"


def test_who_leaves_finishes_what_runs_and_starts_nothing(host: Peer) -> None:
    host.fake.pools.work.held = True
    running = host.post_fields(Message.CREATE, ContainerConfig="{}")
    host.bridge.leave()
    late = host.post_fields(Message.START)
    assert host.bridge.busy
    step(host)
    assert answered(host, running, late) == [True, False]
    assert not host.bridge.busy


def test_who_leaves_gives_up_the_queue_of_one_at_a_time(sequential: Peer) -> None:
    sequential.fake.pools.work.held = True
    first, second = (sequential.post_fields(Message.DELETE) for _ in range(2))
    sequential.bridge.leave()
    step(sequential)
    step(sequential)
    assert answered(sequential, first, second) == [True, False]
    assert not sequential.bridge.busy
