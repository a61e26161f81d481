from __future__ import annotations

from typing import Any

from uvmd.daemon.spans import Told
from uvmd.observe.spans import Span, Spans
from uvmd.observe.steps import Trace, follow, step

CARRIER = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
REQUEST: dict[str, Any] = {
    "name": "create",
    "message_type": 0x10100101,
    "message_id": 7,
    "response_type": 0x20100101,
    "activity_id": "a",
    "container_id": "web",
    "carrier": CARRIER,
    "duration_s": 1e8,
    "error": "no",
}


def ended(trace: Trace | None) -> Span:
    spans, seen = Spans(), list[Span]()
    spans.add_listener(seen.append)
    spans.end(**REQUEST, trace=trace)
    (span,) = seen
    return span


def test_a_request_is_told_after_its_steps_which_are_of_its_trace() -> None:
    trace = Trace(0)
    follow(trace)
    with step("plan"), step("policy", "create_container"):
        pass
    follow(None)
    plan, policy, request = Told(ended(trace))
    assert (plan.name, policy.name, request.name) == ("plan", "policy create_container", "create")
    assert {one.trace_id for one in (plan, policy, request)} == {"0af7651916cd43dd8448eb211c80319c"}
    assert request.parent_id == "b7ad6b7169203331"
    assert (plan.parent_id, policy.parent_id) == (request.span_id, plan.span_id)
    assert len({plan.span_id, policy.span_id, request.span_id}) == 3
    assert all(len(one.span_id) == 16 for one in (plan, policy, request))
    assert request.start_ns <= plan.start_ns <= policy.start_ns <= policy.end_ns <= plan.end_ns
    assert plan.facts == policy.facts == {"request": request.span_id}
    assert request.facts == {"container": "web", "activity": "a", "message_type": 0x10100101}
    assert request.error == "no"


def test_who_listens_twice_hears_the_same() -> None:
    trace = Trace(0)
    trace.note("queue", 0)
    told = Told(ended(trace))
    assert list(told) == list(told)


def test_a_request_without_steps_is_one_span() -> None:
    (request,) = Told(ended(None))
    assert request.end_ns - request.start_ns == 10**17


def test_what_a_host_makes_up_is_told_cut() -> None:
    spans, seen = Spans(), list[Span]()
    spans.add_listener(seen.append)
    spans.end(**{**REQUEST, "activity_id": "a" * 9999, "container_id": "c" * 9999, "error": "e" * 9999})
    (request,) = Told(seen[0])
    assert (len(str(request.facts["activity"])), len(str(request.facts["container"]))) == (128, 128)
    assert len(request.error) == 1024
