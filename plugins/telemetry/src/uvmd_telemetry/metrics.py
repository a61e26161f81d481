"""The text of a scrape: the Prometheus exposition format 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/. Written here rather than by
the client library, which would cost the daemon 14 MiB; the tests read it with the
library's own parser.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from uvmd_telemetry.seen import BOUNDS_S, Snapshot

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_Labels = Mapping[str, str]
_Sample = tuple[str, _Labels, float]
#: Of each container: the key of ``uvmd.usage``, the metric, its type, help, and what it is divided by.
_OF_A_CONTAINER: Final = (
    ("cpu_ns", "cpu_seconds_total", "counter", "CPU time used", 1e9),
    ("memory_bytes", "memory_bytes", "gauge", "Memory in use, caches included", 1),
    ("memory_limit_bytes", "memory_limit_bytes", "gauge", "Limit of memory; 0 is none", 1),
    ("processes", "processes", "gauge", "Processes and threads", 1),
    ("oom_kills", "oom_kills_total", "counter", "Processes that the kernel killed for lack of memory", 1),
    ("read_bytes", "read_bytes_total", "counter", "Bytes read from block devices", 1),
    ("written_bytes", "written_bytes_total", "counter", "Bytes written to block devices", 1),
)


def render(
    usage: Sequence[Mapping[str, Any]], seen: Snapshot, dropped: Mapping[str, int], version: str
) -> str:
    """Return the page. ``usage`` is the property ``uvmd.usage``; ``dropped`` is by plugin."""
    return "\n".join(_lines(usage, seen, dropped, version)) + "\n"


def _lines(
    usage: Sequence[Mapping[str, Any]], seen: Snapshot, dropped: Mapping[str, int], version: str
) -> Iterator[str]:
    yield from _family("uvmd_build_info", "gauge", "The version", [("", {"version": version}, 1)])
    states = Counter(str(row["state"]) for row in usage)
    yield from _family(
        "uvmd_containers",
        "gauge",
        "Containers by state",
        [("", {"state": state}, count) for state, count in sorted(states.items())],
    )
    yield from _of_containers(usage)
    yield from _family(
        "uvmd_container_events_total",
        "counter",
        "What happened to containers",
        [("", {"kind": kind}, count) for kind, count in sorted(seen.events.items())],
    )
    yield from _family(
        "uvmd_request_duration_seconds", "histogram", "Requests of the host, by outcome", _durations(seen)
    )
    yield from _family(
        "uvmd_events_dropped_total",
        "counter",
        "Events and spans that a plugin was too slow to hear",
        [("", {"plugin": name}, count) for name, count in sorted(dropped.items())],
    )
    yield from _family("uvmd_spans_sent_total", "counter", "Spans that arrived", [("", {}, seen.spans_sent)])
    yield from _family("uvmd_spans_lost_total", "counter", "Spans that did not", [("", {}, seen.spans_lost)])
    times = os.times()
    yield from _family(
        "process_cpu_seconds_total",
        "counter",
        "CPU time of the daemon",
        [("", {}, times.user + times.system)],
    )
    yield from _family(
        "process_resident_memory_bytes", "gauge", "Memory of the daemon", [("", {}, _resident_bytes())]
    )


def _of_containers(usage: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The bulk of a page: the labels of each container are written once, not for every metric."""
    if not usage:
        return
    labels = [_braces({"container": str(row["id"]), "pod": str(row["pod"])}) for row in usage]
    for key, name, kind, text, divisor in _OF_A_CONTAINER:
        name = f"uvmd_container_{name}"
        yield from _head(name, kind, text)
        for row, braces in zip(usage, labels, strict=True):
            yield f"{name}{braces} {_number(row[key] / divisor) if divisor != 1 else row[key]}"


def _durations(seen: Snapshot) -> Iterator[_Sample]:
    bounds = [*(f"{bound:g}" for bound in BOUNDS_S), "+Inf"]
    for (request, outcome), (buckets, sum_s) in sorted(seen.requests.items()):
        labels = {"request": request, "outcome": outcome}
        count = 0
        for bound, found in zip(bounds, buckets, strict=True):
            count += found
            yield "_bucket", {**labels, "le": bound}, count
        yield "_sum", labels, sum_s
        yield "_count", labels, count


def _family(name: str, kind: str, text: str, samples: Iterable[_Sample]) -> Iterator[str]:
    lines = [f"{name}{suffix}{_braces(labels)} {_number(value)}" for suffix, labels, value in samples]
    if lines:
        yield from _head(name, kind, text)
        yield from lines


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP {name} {text}.", f"# TYPE {name} {kind}"


def _braces(labels: _Labels) -> str:
    inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items() if value)
    return f"{{{inside}}}" if inside else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
