"""Counting, the page of a scrape, OTLP and the table of uvmctl top; each read by somebody else's reader."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from uvmd.api import Span
from uvmd_telemetry import metrics, otlp, seen
from uvmd_telemetry.config import TelemetryConfig
from uvmd_telemetry.listening import parse_address

ROW = {
    "id": "web",
    "pod": "shop",
    "state": "running",
    "cpu_ns": 1_500_000_000,
    "memory_bytes": 4096,
    "memory_limit_bytes": 0,
    "processes": 2,
    "oom_kills": 1,
    "read_bytes": 10,
    "written_bytes": 20,
}


def span(name: str = "Create", ms: float = 3, error: str = "", **facts: Any) -> Span:
    return Span(name, "ab" * 16, "cd" * 8, "ef" * 8, 10**18, 10**18 + int(ms * 1e6), error, facts)


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            found[one.name, frozenset(one.labels.items())] = one.value
    return found


def labels(**given: str) -> frozenset[tuple[str, str]]:
    return frozenset(given.items())


def page(*rows: dict[str, Any], counted: seen.Seen | None = None) -> dict[Any, float]:
    return samples(metrics.render(rows, (counted or seen.Seen()).snapshot(), {"slow": 2}, "1.2"))


def test_each_container_has_its_figures_in_base_units() -> None:
    found = page(ROW)
    web = labels(container="web", pod="shop")
    assert found["uvmd_container_cpu_seconds_total", web] == 1.5
    assert found["uvmd_container_memory_bytes", web] == 4096
    assert found["uvmd_container_oom_kills_total", web] == 1
    assert found["uvmd_containers", labels(state="running")] == 1
    assert found["uvmd_build_info", labels(version="1.2")] == 1
    assert found["uvmd_events_dropped_total", labels(plugin="slow")] == 2
    assert found["process_resident_memory_bytes", labels()] > 1 << 20


def test_names_that_need_escaping_arrive_as_they_are() -> None:
    odd = 'a"b\\c\nd'
    assert page({**ROW, "id": odd, "pod": ""})["uvmd_container_processes", labels(container=odd)] == 2


def test_requests_fill_a_histogram_by_name_and_outcome() -> None:
    counted = seen.Seen()
    for ms, error in ((0.1, ""), (3, ""), (3, ""), (100_000, ""), (1, "denied")):
        counted.span(span(ms=ms, error=error))
    found = page(counted=counted)
    name, ok = "uvmd_request_duration_seconds", {"request": "Create", "outcome": "ok"}
    assert found[f"{name}_bucket", labels(**ok, le="0.0005")] == 1
    assert found[f"{name}_bucket", labels(**ok, le="0.005")] == 3
    assert found[f"{name}_bucket", labels(**ok, le="60")] == 3
    assert found[f"{name}_bucket", labels(**ok, le="+Inf")] == found[f"{name}_count", labels(**ok)] == 4
    assert found[f"{name}_sum", labels(**ok)] == pytest.approx(100.0061)
    assert found[f"{name}_count", labels(request="Create", outcome="error")] == 1


def test_events_of_containers_are_counted_by_kind() -> None:
    counted = seen.Seen()
    for kind in ("created", "created", "exited"):
        counted.container(kind)
    assert page(counted=counted)["uvmd_container_events_total", labels(kind="created")] == 2


def test_a_page_of_an_empty_vm_is_one_that_parses() -> None:
    assert not [key for key in page() if key[0].startswith("uvmd_container_")]


def test_spans_are_kept_only_when_they_are_sent_and_the_oldest_are_lost() -> None:
    counted = seen.Seen()
    counted.span(span())
    assert counted.take(10) == []
    counted.keep_spans = True
    for number in range(seen.MOST_SPANS + 3):
        counted.span(span(str(number)))
    assert counted.snapshot().spans_lost == 3
    assert [one.name for one in counted.take(2)] == ["3", "4"]


def test_who_sends_spans_waits_without_a_limit_until_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = seen.Seen()
    counted.keep_spans = True
    ending, limits = threading.Event(), []

    def wait(timeout: float | None = None) -> bool:
        limits.append(timeout)
        if timeout is None:
            counted._waiting.append(span())
        else:
            ending.set()
        return True

    monkeypatch.setattr(counted._changed, "wait", wait)
    counted.wait(ending, 60.0)
    assert limits[0] is None
    assert 59 < limits[1] <= 60
    ending.set()
    counted.wait(ending, 60.0)
    assert len(limits) == 2


def test_spans_are_what_a_collector_reads() -> None:
    facts = {"container": "web", "message_type": 7, "share": 0.5, "forced": True, "empty": ""}
    body = otlp.encode([span(error="denied", **facts), span()._replace(parent_id="")], "1.2")
    told = json.loads(body)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert (told[0]["traceId"], told[0]["parentSpanId"]) == ("ab" * 16, "ef" * 8)
    assert "parentSpanId" not in told[1]
    read = json_format.Parse(body, ExportTraceServiceRequest())
    first = read.resource_spans[0].scope_spans[0].spans[0]
    assert (first.name, first.start_time_unix_nano, first.end_time_unix_nano) == (
        "Create",
        10**18,
        10**18 + 3_000_000,
    )
    assert (first.status.message, first.kind) == ("denied", 2)
    values = {one.key: one.value for one in first.attributes}
    step = otlp.encode([span("plan", request="cd" * 8)], "1.2")
    (inner,) = json_format.Parse(step, ExportTraceServiceRequest()).resource_spans[0].scope_spans[0].spans
    assert inner.kind == 1
    assert values["uvmd.container"].string_value == "web"
    assert values["uvmd.message_type"].int_value == 7
    assert (values["uvmd.share"].double_value, values["uvmd.forced"].bool_value) == (0.5, True)
    assert "uvmd.empty" not in values


@pytest.mark.parametrize(
    "text", ["", "unix:", "unix:rel", "vsock:", "vsock:-1", "vsock:4294967296", "tcp:1", "unix:/" + "x" * 107]
)
def test_an_address_is_a_path_or_a_port(text: str) -> None:
    with pytest.raises(ValueError, match="say unix"):
        parse_address(text)


def test_a_wrong_address_is_a_wrong_configuration() -> None:
    assert TelemetryConfig(metrics="vsock:9100").metrics == "vsock:9100"
    with pytest.raises(ValueError, match="say unix"):
        TelemetryConfig(metrics="9100")
