"""Framing: what closes a connection, what does not, and what the next one finds."""

from __future__ import annotations

import json
import random
import struct

import pytest

from support.daemon import Daemon, running
from support.host import (
    CREATE,
    DUMP_STACKS,
    HEADER,
    MODIFY,
    NEGOTIATE,
    NOTIFICATION,
    NULL_ID,
    START,
    ZERO_GUID,
    Connection,
    code,
)
from support.matrix import row

MIB = 1 << 20
BASE = {"ContainerId": "", "ActivityId": ZERO_GUID}


@pytest.fixture
def crun_daemon():
    with running() as started:
        yield started


def assert_next_connection_works(daemon: Daemon) -> None:
    bridge = daemon.connect()
    assert code(bridge.ask(START, BASE)) == "S_OK"
    bridge.close()


@row("frame.too-small", "frame.too-large")
@pytest.mark.parametrize("size", [0, 1, 15, 16 * MIB + 1, 0xFFFFFFFF])
def test_an_impossible_size_closes_only_that_connection(crun_daemon: Daemon, size: int) -> None:
    bridge = crun_daemon.connect()
    bridge.send_bytes(HEADER.pack(START, size, 7))
    bridge.wait_until_closed()
    bridge.close()
    assert_next_connection_works(crun_daemon)
    assert any("frame" in line["msg"] or "size" in str(line) for line in crun_daemon.log_lines())


@row("frame.truncated")
def test_a_header_cut_short_ends_only_that_connection(crun_daemon: Daemon) -> None:
    bridge = crun_daemon.connect()
    bridge.send_bytes(HEADER.pack(START, 16, 1)[:9])
    bridge.close()
    assert_next_connection_works(crun_daemon)


def test_a_body_cut_short_ends_only_that_connection(crun_daemon: Daemon) -> None:
    bridge = crun_daemon.connect()
    bridge.send_bytes(HEADER.pack(CREATE, 5000, 1) + b"{")
    bridge.close()
    assert_next_connection_works(crun_daemon)


def test_a_frame_may_arrive_byte_by_byte(steady: Connection) -> None:
    text = json.dumps(BASE).encode()
    frame = HEADER.pack(START, HEADER.size + len(text), 1 << 40) + text
    steady.expect(1 << 40, START)
    for byte in frame:
        steady.send_bytes(bytes([byte]))
    assert code(steady.answer(1 << 40)) == "S_OK"


def test_many_frames_may_arrive_in_one_piece(steady: Connection) -> None:
    text = json.dumps(BASE).encode()
    ids = [(1 << 41) + n for n in range(300)]
    for id_ in ids:
        steady.expect(id_, START)
    steady.send_bytes(b"".join(HEADER.pack(START, HEADER.size + len(text), id_) + text for id_ in ids))
    assert {code(steady.answer(id_)) for id_ in ids} == {"S_OK"}


@row("frame.large-request")
@pytest.mark.parametrize("size", [65536, 300_000, 16 * MIB])
def test_large_requests_are_taken(steady: Connection, size: int) -> None:
    around = len(json.dumps({**BASE, "Padding": ""})) + HEADER.size
    body = json.dumps({**BASE, "Padding": "x" * (size - around)}).encode()
    assert code(steady.ask(START, body)) == "S_OK"


def test_the_largest_id_comes_back(steady: Connection) -> None:
    id_ = (1 << 63) - 1
    steady.send(START, BASE, id_=id_)
    assert code(steady.answer(id_)) == "S_OK"


@row("negotiate-required", "any-before-negotiate")
def test_nothing_is_served_before_negotiate(crun_daemon: Daemon) -> None:
    bridge = crun_daemon.connect(negotiate=False)
    for message in (CREATE, START, DUMP_STACKS, MODIFY, 0x10100E01):
        assert code(bridge.ask(message, BASE)) == "E_NOTIMPL"
    bridge.negotiate()
    bridge.close()


def test_the_version_is_per_connection(crun_daemon: Daemon) -> None:
    bridge = crun_daemon.connect()
    bridge.close()
    bridge = crun_daemon.connect(negotiate=False)
    assert code(bridge.ask(START, BASE)) == "E_NOTIMPL"
    bridge.close()


@row("any.unknown-type", "any.not-a-request")
@pytest.mark.parametrize(
    "message",
    [0x10100E01, 0x10100F01, 0x10200101, NOTIFICATION, 0x20100101, 0, 0x10100102, 0x1010FF01, 0xFFFFFFFF],
    ids=hex,
)
def test_unknown_types_answer_not_implemented(steady: Connection, message: int) -> None:
    answer = steady.ask(message, {"ContainerId": NULL_ID, "ActivityId": ZERO_GUID})
    assert code(answer) == "E_NOTIMPL"
    assert answer["ActivityId"] == ZERO_GUID


@pytest.mark.parametrize("seed", range(8))
def test_noise_never_ends_the_daemon(steady_daemon: Daemon, steady: Connection, seed: int) -> None:
    chance = random.Random(seed)
    message = chance.choice([CREATE, START, MODIFY, NEGOTIATE])
    for _ in range(25):
        body = chance.randbytes(chance.randrange(0, 400))
        assert code(steady.ask(message, body)) in ("INVALID_JSON", "E_NOTIMPL")
    assert steady_daemon.process.poll() is None


@row("any.answer-limit")
def test_answers_never_pass_the_limit(steady: Connection) -> None:
    # The host's own limit is checked in Connection; here the answer wants to be larger.
    long_name = "n" * 200_000
    answer = steady.ask(MODIFY, {**BASE, "ContainerId": NULL_ID, "Request": {"ResourceType": long_name}})
    assert code(answer) == "E_FAIL"
    unknown = "i" * 100_000
    assert code(steady.ask(DUMP_STACKS, {**BASE, "ContainerId": unknown})) == "S_OK"


@row("any.activity-not-a-guid")
def test_an_activity_id_that_is_no_guid_is_not_echoed(steady: Connection) -> None:
    for activity in ("", "x", "0000", "z" * 36, 5, None):
        answer = steady.ask(START, {"ContainerId": "c", "ActivityId": activity})
        assert "ActivityId" not in answer
    mine = "12345678-9abc-def0-1234-56789abcdef0"
    assert steady.ask(START, {"ContainerId": "c", "ActivityId": mine})["ActivityId"] == mine


def test_trace_context_of_any_shape_is_harmless(steady: Connection) -> None:
    good = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"}
    zeros = {"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-01"}
    for context in (good, {"traceparent": "no"}, {}, None, zeros):
        assert code(steady.ask(START, {**BASE, "otsc": context})) == "S_OK"


def test_the_size_field_is_little_endian(steady: Connection) -> None:
    text = b"{}"
    steady.expect(77777, START)
    steady.send_bytes(struct.pack("<I", START) + bytes([18, 0, 0, 0]) + struct.pack("<Q", 77777) + text)
    assert code(steady.answer(77777)) == "S_OK"
