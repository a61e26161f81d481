from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.observe.spans import Span, Spans, parent_of

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
REQUEST: dict[str, Any] = {
    "name": "start",
    "message_type": 0x10100201,
    "message_id": 7,
    "response_type": 0x20100201,
    "activity_id": "a",
    "container_id": "c",
    "carrier": None,
    "duration_s": 0.25,
    "error": "",
}


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        (f"00-{TRACE}-{PARENT}-01", True),
        (f"cc-{TRACE}-{PARENT}-01-what-the-future-brings", True),
        (f"00-{TRACE}-{PARENT}-01-more", False),
        (f"ff-{TRACE}-{PARENT}-01", False),
        (f"00-{'0' * 32}-{PARENT}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE.upper()}-{PARENT}-01", False),
        (f"00-{TRACE}-{PARENT}", False),
        ("", False),
    ],
)
def test_only_a_valid_traceparent_is_a_parent(header: str, taken: bool) -> None:
    expected = (TRACE, PARENT, "k=v") if taken else ("", "", "")
    assert parent_of({"traceparent": header, "tracestate": "k=v"}) == expected


@given(st.dictionaries(st.sampled_from(["traceparent", "tracestate", "x"]), st.text()) | st.none())
def test_any_carrier_is_harmless(carrier: dict[str, str] | None) -> None:
    parent_of(carrier)


def test_a_trace_state_that_is_too_long_is_left_out() -> None:
    carrier = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "x" * 513}
    assert parent_of(carrier) == (TRACE, PARENT, "")


def test_nobody_wants_spans_until_somebody_listens() -> None:
    spans = Spans()
    assert not spans.wanted
    spans.add_listener(lambda span: None)
    assert spans.wanted


def test_a_span_has_new_ids_and_its_times() -> None:
    spans, seen = Spans(), list[Span]()
    spans.add_listener(seen.append)
    spans.end(**REQUEST)
    spans.end(**REQUEST)
    first, second = seen
    assert len(first.trace_id) == 32
    assert len(first.span_id) == 16
    assert first.trace_id != second.trace_id
    assert first.duration_ns == 250_000_000
    assert first.parent_id == ""


def test_a_listener_that_fails_does_not_keep_others_from_hearing(caplog: pytest.LogCaptureFixture) -> None:
    spans, seen = Spans(), list[Span]()

    def bad(span: Span) -> None:
        raise ValueError("no")

    spans.add_listener(bad)
    spans.add_listener(seen.append)
    spans.end(**REQUEST)
    assert len(seen) == 1
    assert [record.__dict__["error"] for record in caplog.records] == ["ValueError"]


def test_at_debug_a_span_is_logged_under_the_names_of_old(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="uvmd.observe.spans"):
        spans = Spans()
        assert spans.wanted
        spans.end(**REQUEST | {"error": "no"})
    (record,) = caplog.records
    facts = record.__dict__["facts"]
    assert record.getMessage() == "Span"
    assert (facts["name"], facts["cid"], facts["message-id"], facts["error"]) == ("start", "c", 7, "no")
    assert facts["message-type"] == "0x10100201"
    assert facts["duration"] == "250.000ms"
    assert set(facts) >= {"traceID", "spanID", "parentSpanID", "startTime", "endTime", "activityID"}
