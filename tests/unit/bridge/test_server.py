"""Connections, waits and notifications; what a line in the log says of a request."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from support.fake_host import FOREVER_MS, FakeHost
from support.peer import Peer
from uvmd.bridge import deadlines, dispatch, server
from uvmd.bridge.frames import Frame
from uvmd.bridge.hresult import name_of
from uvmd.bridge.identifiers import ZERO_GUID, Message
from uvmd.host.doing import Doing
from uvmd.host.locks import REQUEST_LIMIT_S
from uvmd.monitor.link import Earlier
from uvmd.observe.spans import Span, Spans
from uvmd.observe.steps import followed


def wait(host: Peer, pid: int, timeout_ms: int = FOREVER_MS, container_id: str = "c") -> int:
    fields = {"ProcessId": pid, "TimeoutInMs": timeout_ms}
    return host.post_fields(Message.WAIT, container_id=container_id, **fields)


def results(host: Peer, id_: int) -> list[str]:
    return [name_of(answer["Result"]) for answer in host.answers(id_)]


def test_a_wait_is_answered_when_the_process_exits(host: Peer) -> None:
    id_ = wait(host, host.create())
    assert host.answers(id_) == []
    host.fake.exit_init("c", 137)
    assert host.answers(id_) == [{"Result": 0, "ActivityId": ZERO_GUID, "ExitCode": 137}]


def test_an_exit_code_that_is_there_wins_over_a_timeout_of_zero(host: Peer) -> None:
    pid = host.create()
    assert results(host, wait(host, pid, 0)) == ["TIMEOUT"]
    host.fake.exit_init("c", 3)
    assert host.answers(wait(host, pid, 0))[0]["ExitCode"] == 3


def test_a_wait_that_runs_out_of_time_is_answered_once(host: Peer) -> None:
    pid = host.create()
    id_ = wait(host, pid, 50)
    host.fake.timers.pass_s(0.05)
    host.fake.exit_init("c", 0)
    assert results(host, id_) == ["TIMEOUT"]


def test_an_exit_code_is_an_unsigned_number(host: Peer) -> None:
    id_ = wait(host, host.create())
    host.fake.exit_init("c", -1)
    assert host.answers(id_)[0]["ExitCode"] == 4294967295


def test_five_thousand_pending_waits_cost_less_than_a_kibibyte_each(host: Peer) -> None:
    pid = host.create()
    ids = [wait(host, pid) for _ in range(5000)]
    first, second = host.fake.containers["c"].init.waiting[:2]
    seen: set[int] = set()

    def size(value: Any) -> int:
        if id(value) in seen or isinstance(value, server.Bridge):
            return 0
        seen.add(id(value))
        slots = getattr(type(value), "__slots__", ())
        inner = [getattr(value, slot) for slot in slots if hasattr(value, slot)]
        if hasattr(value, "__self__"):
            inner.append(value.__self__)
        return sys.getsizeof(value) + sum(size(one) for one in inner)

    assert size(first) > 0  # what all of them share is counted here
    assert size(second) < 512
    host.fake.exit_init("c", 1)
    assert all(len(host.answers(id_)) == 1 for id_ in (ids[0], ids[-1]))
    assert len(host.sent) == 5000 + 3


def test_a_late_answer_goes_out_on_the_next_connection_after_its_negotiation(host: Peer) -> None:
    id_ = wait(host, host.create())
    host.disconnect()
    host.fake.exit_init("c", 9)
    host.connect(negotiate=False)
    assert host.answers(id_) == []
    assert host.code(Message.START) == "E_NOTIMPL"
    host.ask(Message.NEGOTIATE, container_id="", MinimumVersion=4, MaximumVersion=4)
    assert host.answers(id_)[0]["ExitCode"] == 9
    order = [frame.type for generation, frame in host.sent if generation == 2]
    assert order == [0x20100201, 0x20100B01, 0x20100601, 0x30100101]


def test_a_request_right_behind_negotiate_is_served(host: Peer) -> None:
    host.connect(negotiate=False)
    negotiate = host.post_fields(Message.NEGOTIATE, container_id="", MinimumVersion=4, MaximumVersion=4)
    start = host.post_fields(Message.START)
    assert results(host, negotiate) == results(host, start) == ["S_OK"]


def test_every_connection_negotiates_anew(host: Peer) -> None:
    host.disconnect()
    host.connect(negotiate=False)
    assert host.code(Message.START) == "E_NOTIMPL"


def test_frames_of_a_connection_that_is_gone_are_ignored(host: Peer) -> None:
    host.disconnect()
    assert host.answers(host.post_fields(Message.START)) == []
    host.connect()
    host.bridge.bridge_down(1, "an old one")
    assert host.code(Message.START) == "S_OK"


def test_frames_that_were_not_sent_come_again(host: Peer) -> None:
    (_, lost) = host.sent[-1]
    host.bridge.bridge_unsent(77, 0, Frame(0x20100601, 77, b"{}").encode())
    host.bridge.bridge_unsent(78, 0, lost.encode())
    host.disconnect()
    host.connect()
    assert [frame.id for generation, frame in host.sent if generation == 2][-1] != lost.id
    assert 77 in [frame.id for _, frame in host.sent]


def test_an_exit_is_told_once_with_the_activity_of_its_create(host: Peer) -> None:
    host.create()
    host.fake.exit_init("c", 0, "GracefulExit")
    assert host.notifications() == [
        {
            "ContainerId": "c",
            "ActivityId": ZERO_GUID,
            "Type": "GracefulExit",
            "Operation": "None",
            "Result": 0,
        }
    ]


@pytest.mark.parametrize("activity", ["", "not-a-guid", "0f8fad5bd9cb469fa16570867728950e"])
def test_an_activity_that_a_host_cannot_parse_is_never_sent(host: Peer, activity: str) -> None:
    config = json.dumps({"SchemaVersion": {"Major": 2, "Minor": 1}, "OciSpecification": {}})
    body = {"ContainerId": "c", "ActivityId": activity, "ContainerConfig": config}
    assert "ActivityId" not in host.ask_raw(Message.CREATE, json.dumps(body).encode())
    host.fake.exit_init("c", 0)
    assert host.notifications()[0]["ActivityId"] == ZERO_GUID


def test_with_version_four_off_nothing_is_served() -> None:
    host = Peer(FakeHost(), v4=False).connect(negotiate=False)
    for type_ in Message:
        assert host.code(type_) == "E_NOTIMPL"


def test_a_strict_vm_refuses_keys_that_differ_only_in_case() -> None:
    host = Peer(FakeHost(strict=True)).connect()
    answer = host.ask_raw(Message.DELETE, b'{"ContainerId":"a","containerid":"b"}')
    assert answer["ErrorMessage"] == "body.ContainerId is sent twice"
    answer = host.ask_raw(Message.START, b'{"ContainerId":"a","ContainerId":"b"}')
    assert answer["ErrorMessage"] == "body: an object has a key twice"
    config = '{"SchemaVersion":{"Major":2,"Minor":1},"OciBundlePath":"/a","ociBundlePath":"/b"}'
    assert host.code(Message.CREATE, ContainerConfig=config) == "INVALID_JSON"


def test_no_model_is_needed_for_negotiate_start_and_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("messages", "operations"):
        monkeypatch.setitem(sys.modules, f"uvmd.bridge.{module}", None)
        monkeypatch.delattr(f"uvmd.bridge.{module}", raising=False)
    host = Peer(FakeHost()).connect()
    assert host.code(Message.START) == "S_OK"
    assert host.code(Message.WAIT) == "SYSTEM_NOT_FOUND"
    assert host.code(Message.MODIFY) == "E_FAIL", "and here it is"


def test_each_request_writes_one_line(host: Peer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="uvmd.bridge.server"):
        host.ask(Message.START)
        host.code(Message.DELETE, container_id="nobody")
    ok, failed = [record.__dict__ for record in caplog.records]
    assert (ok["operation"], ok["container"], ok["result"]) == ("start", "c", "S_OK")
    assert (failed["operation"], failed["result"]) == ("delete", "SYSTEM_NOT_FOUND")
    assert failed["error"] == "no such container"
    assert failed["duration_ms"] >= 0


def test_an_unplanned_error_is_logged_with_its_stack_and_without_its_text(
    host: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    host.fake.raising["delete"] = KeyError("s3cr3t")
    with caplog.at_level(logging.ERROR):
        assert host.ask(Message.DELETE)["ErrorMessage"] == "internal error (KeyError)"
    (record,) = caplog.records
    assert "delete_container" in record.__dict__["stack"]
    assert "s3cr3t" not in record.__dict__["stack"]


def test_a_span_is_parented_by_the_callers_context() -> None:
    spans, seen = Spans(), list[Span]()
    spans.add_listener(seen.append)
    host = Peer(FakeHost(), spans=spans).connect()
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    id_ = host.post_fields(Message.DELETE, otsc={"traceparent": parent, "tracestate": "a=b"})
    span = seen[-1]
    assert (span.name, span.message_id, span.container_id) == ("delete", id_, "c")
    assert (span.message_type, span.response_type) == (Message.DELETE, 0x20100D01)
    assert (span.trace_id, span.parent_id) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert span.error == "no such container"


def test_a_request_somebody_listens_to_has_its_steps_and_the_thread_is_free_again() -> None:
    spans, seen = Spans(), list[Span]()
    spans.add_listener(seen.append)
    host = Peer(FakeHost(), spans=spans).connect()
    host.post_fields(Message.DELETE)
    names = [(one.name, one.parent_id == seen[-1].span_id) for one in seen[-1].parts()]
    assert names == [
        ("queue", True),
        ("parse", True),
        ("load", True),
        ("decode body", True),
        ("answer", True),
    ]
    assert followed() is None


def test_a_wait_that_may_last_for_days_keeps_no_steps() -> None:
    spans, seen = Spans(), list[Span]()
    spans.add_listener(seen.append)
    host = Peer(FakeHost(), spans=spans).connect()
    wait(host, host.create())
    assert seen[-1].name == "create"
    host.fake.exit_init("c", 3)
    assert seen[-1].name == "wait"
    assert list(seen[-1].parts()) == []


# Requests and answers that outlive a daemon


def again(host: Peer, type_: int, body: bytes, *, attempt: int = 1, state: int = 4) -> list[dict[str, Any]]:
    """Hand a request over that an earlier daemon had; return its answers."""
    host.next_id += 1
    frame = Frame(type_, host.next_id, body).encode()
    host.bridge.bridge_again(host.generation, 500 + host.next_id, attempt, state, frame)
    return host.answers(host.next_id)


def test_a_connection_of_an_earlier_daemon_goes_on_as_it_was() -> None:
    host = Peer(FakeHost())
    host.generation = 3
    host.bridge.bridge_up(3, 0x104)
    assert host.bridge.wants_events
    assert host.code(Message.START) == "S_OK"
    assert host.code(Message.NEGOTIATE, MinimumVersion=4, MaximumVersion=4) == "E_NOTIMPL"


def test_the_answer_to_negotiate_tells_the_monitor_what_was_agreed() -> None:
    host = Peer(FakeHost()).connect()
    assert host.facts == [(1001, 0, 4)]
    host.ask(Message.START)
    assert host.facts[-1] == (1002, 0, -1)


def test_a_request_that_comes_again_waits_for_what_was_begun_and_settles(host: Peer) -> None:
    answers = again(host, Message.GET_PROPERTIES, b'{"ContainerId":"c","Query":""}')
    assert len(answers) == 1
    number = 500 + host.next_id
    assert host.fake.awaited == [number]
    assert host.fake.settled == [(number, True)], "there is no such container"
    assert host.facts[-1][0] == number


def test_a_request_that_nobody_had_is_served_like_a_new_one(host: Peer) -> None:
    assert again(host, Message.START, b"{}", attempt=0)[0]["Result"] == 0
    assert host.fake.awaited == host.fake.settled == []


def test_a_request_of_a_lost_connection_has_the_version_that_was_agreed_there(host: Peer) -> None:
    frame = Frame(Message.START, 77, b"{}").encode()
    host.bridge.bridge_again(host.generation - 1, 9, 1, 4, frame)
    host.bridge.bridge_again(host.generation - 1, 10, 1, 0, frame)
    assert [answer["Result"] for answer in host.answers(77)] == [0, -0x7FFFBFFF]


def test_a_request_that_ends_every_daemon_is_answered_with_an_error(host: Peer) -> None:
    (answer,) = again(host, Message.START, b"{}", attempt=server.MAX_ATTEMPTS)
    assert name_of(answer["Result"]) == "E_FAIL"
    host.create()
    pid = host.fake.containers["c"].init.pid
    wait = b'{"ContainerId":"c","ProcessId":%d,"TimeoutInMs":4294967295}' % pid
    assert again(host, Message.WAIT, wait, attempt=100) == [], "a wait may be as old as its container"


def modify_again(host: Peer, attempt: int = 1) -> list[dict[str, Any]]:
    body = {"ContainerId": ZERO_GUID, "Request": {"ResourceType": "PodCgroupMemoryLimit"}}
    return again(host, Message.MODIFY, json.dumps(body).encode(), attempt=attempt)


def test_a_request_that_ends_every_daemon_is_settled_and_not_even_read(
    host: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(server.Call, "read")
    settled: list[Doing] = []
    monkeypatch.setattr(host.fake, "settle_request", lambda what, *, failed: settled.append(what))
    host.fake.earlier[501 + host.next_id] = Earlier(notes={"create_container 1": b"{}"})
    (answer,) = again(host, Message.CREATE, b"{}", attempt=server.MAX_ATTEMPTS)
    assert "ended 10 times" in answer["ErrorMessage"]
    (what,) = settled
    assert (what.number, what.again, what.recalled) == (500 + host.next_id, True, True)
    assert [call for call in host.fake.calls if call[0] == "create"] == []


def test_a_request_whose_beginnings_cannot_be_learnt_is_settled(
    host: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(request: int) -> Earlier:
        raise OSError(32, "the monitor does not answer")

    monkeypatch.setattr(host.fake, "await_request", lost)
    assert len(again(host, Message.GET_PROPERTIES, b'{"ContainerId":"c","Query":""}')) == 1
    assert host.fake.settled == [(500 + host.next_id, True)]


def test_a_request_that_came_again_and_finds_no_room_is_settled(
    host: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "MAX_OPEN", 0)
    assert len(modify_again(host)) == 1
    assert host.fake.settled == [(500 + host.next_id, True)]
    assert len(modify_again(host, attempt=0)) == 1
    assert len(host.fake.settled) == 1, "no daemon has begun it"


@pytest.mark.parametrize("has_thread", [False, True])
def test_a_request_that_came_again_and_is_late_is_settled_and_done_no_more(
    host: Peer, monkeypatch: pytest.MonkeyPatch, has_thread: bool
) -> None:
    clock = deadlines.monotonic

    def pass_time(request: int = 0) -> Earlier:
        monkeypatch.setattr(deadlines, "monotonic", lambda: clock() + 2 * REQUEST_LIMIT_S)
        host.fake.timers.pass_s(2 * REQUEST_LIMIT_S)
        return Earlier()

    if has_thread:
        monkeypatch.setattr(host.fake, "await_request", pass_time)
        (answer,) = modify_again(host)
    else:
        host.fake.pools.find.held = True
        assert modify_again(host) == []
        pass_time()
        host.fake.pools.find.run_all()
        (answer,) = host.answers(host.next_id)
    assert name_of(answer["Result"]) != "S_OK"
    assert host.fake.settled == [(500 + host.next_id, True)]
    assert [call for call in host.fake.calls if call[0] == "modify"] == []
