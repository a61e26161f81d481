"""Traces that are kept: what is told of them, the picture in the terminal, Chrome's format."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from uvmd.api import Span
from uvmd.api.testing import fake_environment
from uvmd.errors import PolicyDenied
from uvmd_telemetry import seen, waterfall
from uvmd_telemetry.cli_trace import listing, report, trace
from uvmd_telemetry.traces import MOST_BYTES, MOST_ROWS, Traces

NULL_ID = "00000000-0000-0000-0000-000000000000"
GUID = "6f1c2a90-5d1b-4f0e-8a63-0d9a4b9f2c11"
START = 1_700_000_000 * 10**9
MS = 10**6


class View:
    logging = True

    def logging_allowed(self) -> bool:
        return self.logging


def add(
    counted: seen.Seen,
    name: str = "create",
    *,
    number: int = 0,
    trace_id: str = "",
    activity: str = "",
    container: str = "web",
    error: str = "",
    steps: tuple[tuple[str, int, int, int], ...] = (
        ("queue", 0, 0, 1),
        ("plan", 0, 1, 4),
        ("policy x", 1, 2, 2),
    ),
) -> None:
    """Tell of a request as the daemon does; steps are name, depth, begin and duration in ms."""
    trace_id = trace_id or f"{number:032x}"
    root = f"{number + 1:08x}00000000"
    parents = [root]
    for index, (step, depth, begin, took) in enumerate(steps):
        span_id = f"{number + 1:08x}{index + 1:08x}"
        del parents[depth + 1 :]
        at = START + begin * MS
        counted.span(Span(step, trace_id, span_id, parents[-1], at, at + took * MS, "", {"request": root}))
        parents.append(span_id)
    facts = {"container": container, "activity": activity, "message_type": 1}
    counted.span(Span(name, trace_id, root, "", START, START + 10 * MS, error, facts))


def asked(counted: seen.Seen, argument: str = "", *, logging: bool = True) -> dict[str, Any]:
    view = View()
    view.logging = logging
    told = Traces(fake_environment(None), counted)(argument, view)  # type: ignore[arg-type]
    read: dict[str, Any] = json.loads(json.dumps(told))
    return read


# What is kept and told


def test_the_list_has_a_row_a_request_and_says_what_is_kept() -> None:
    counted = seen.Seen()
    add(counted, number=1)
    add(counted, "delete", number=2, activity=GUID, error="no such container " + "x" * 200)
    told = asked(counted)
    assert [(row["id"], row["name"], row["duration_ns"]) for row in told["requests"]] == [
        (f"{1:032x}", "create", 10 * MS),
        (GUID, "delete", 10 * MS),
    ]
    assert (told["kept_requests"], told["kept_spans"], told["most_spans"]) == (2, 8, seen.KEPT_SPANS)
    assert (told["oldest_ns"], len(told["requests"][1]["error"])) == (START, 80)


@pytest.mark.parametrize("asked_for", [GUID, GUID.upper(), GUID[:8], f"{2:032x}"])
def test_a_request_is_found_by_activity_trace_or_a_beginning(asked_for: str) -> None:
    counted = seen.Seen()
    add(counted, number=1)
    add(counted, number=2, activity=GUID)
    (request,) = asked(counted, asked_for)["requests"]
    assert (request["id"], request["trace_id"]) == (GUID, f"{2:032x}")
    assert request["steps"] == [
        ["queue", 0, 0, MS, ""],
        ["plan", 0, MS, 4 * MS, ""],
        ["policy x", 1, 2 * MS, 2 * MS, ""],
    ]


def test_the_null_activity_is_nobody_s() -> None:
    counted = seen.Seen()
    add(counted, number=1, activity=NULL_ID)
    assert asked(counted)["requests"][0]["id"] == f"{1:032x}"


def test_a_beginning_of_several_names_them() -> None:
    counted = seen.Seen()
    for number in (1, 2):
        add(counted, number=number)
    told = asked(counted, "0000")
    assert (told["requests"], told["choices"]) == ([], [f"{1:032x}", f"{2:032x}"])


def test_all_requests_of_an_id_are_told_as_far_as_an_answer_reaches() -> None:
    counted = seen.Seen()
    counted.keep(100_000)
    steps = tuple((f"step {n}", 0, n, 1) for n in range(60))
    for number in range(40):
        add(counted, number=number, trace_id="ab" * 16, steps=steps)
    told = asked(counted, "abab")
    assert 0 < told["left_out"] < 40
    assert len(told["requests"]) + told["left_out"] == 40
    assert len(json.dumps(json.dumps(told, separators=(",", ":")))) < MOST_BYTES + 1000
    # A single one is told whatever its size; 256 steps are far below the limit of a frame.
    assert told["requests"][-1]["steps"][-1][0] == "step 59"


def test_a_list_of_whatever_a_host_makes_up_has_room_in_an_answer() -> None:
    counted = seen.Seen()
    for number in range(MOST_ROWS):
        add(counted, number=number, container='"' * 128, error='"' * 1024, steps=())
    told = asked(counted)
    assert len(json.dumps(json.dumps(told, separators=(",", ":")))) < MOST_BYTES + 1000
    assert told["requests"][-1]["id"] == f"{MOST_ROWS - 1:032x}"


def test_nothing_is_told_where_the_policy_allows_no_logging() -> None:
    counted = seen.Seen()
    add(counted)
    with pytest.raises(PolicyDenied, match="no logging"):
        asked(counted, logging=False)


def test_the_oldest_requests_go_whole_when_there_are_more_spans_than_are_kept() -> None:
    counted = seen.Seen()
    counted.keep(10)
    for number in range(4):
        add(counted, number=number)
    assert [one.trace_id for one in counted.kept()] == [f"{n:032x}" for n in (2, 3)]
    assert all(one.spans == 4 for one in counted.kept())
    counted.keep(4)
    assert [one.trace_id for one in counted.kept()] == [f"{3:032x}"]
    counted.keep(0)
    add(counted, number=5)
    assert counted.kept() == []


def test_who_looks_does_not_push_out_what_is_looked_for() -> None:
    counted = seen.Seen()
    add(counted, "get_properties", container=NULL_ID)
    add(counted, "get_properties", container="web")
    assert [one.container for one in counted.kept()] == ["web"]
    assert ("get_properties", "ok") in counted.snapshot().requests


def test_steps_are_no_requests_for_the_metrics() -> None:
    counted = seen.Seen()
    add(counted)
    assert list(counted.snapshot().requests) == [("create", "ok")]


# Pictures

REQUEST = {
    "id": "ab" * 16,
    "trace_id": "ab" * 16,
    "name": "create",
    "container": "web",
    "start_ns": START,
    "duration_ns": 100 * MS,
    "error": "",
    "steps": [
        ["queue", 0, 0, 20_000, ""],
        ["plan", 0, MS, 20 * MS, ""],
        ["policy create_container", 1, 2 * MS, 9 * MS, "PolicyDenied"],
        ["runtime create", 0, 30 * MS, 60 * MS, ""],
        ["monitor run", 1, 30 * MS, 59 * MS, ""],
    ],
}


def lines(columns: int = 80, **options: Any) -> list[str]:
    return list(waterfall.picture(REQUEST, columns, **options))


def test_a_picture_shows_each_step_where_it_was_and_marks_the_biggest() -> None:
    drawn = {line.split()[0]: line for line in lines()}
    assert [line[:27].rstrip() for line in lines()[1:]] == [
        "plan",
        "  policy create_container",
        "runtime create",
        "  monitor run",
        waterfall.BETWEEN,
        "1 smaller ones",
    ]
    # 33 columns are the request's 100 ms: 60 ms are nearly 20 of them, behind the ninth.
    bar = drawn["runtime"][47:]
    assert (bar.index("█"), bar.count("█"), bar[28]) == (9, 19, "▊")
    assert "59%" in drawn["monitor"]
    assert "59%" not in drawn["runtime"]
    assert "PolicyDenied" in drawn["policy"]
    assert drawn["(in"].split()[-1] == "20.0"


def test_a_picture_of_everything_hides_nothing() -> None:
    drawn = lines(everything=True)
    assert drawn[1].startswith("queue")
    assert not drawn[-1].endswith("--all)")


def test_a_terminal_without_unicode_gets_signs_that_it_has() -> None:
    assert "\n".join(lines(unicode=False)).isascii()
    assert any("#" * 19 in line for line in lines(unicode=False))


def test_when_most_of_the_time_was_in_no_step_that_is_marked() -> None:
    request = {**REQUEST, "steps": [["queue", 0, 0, MS, ""]]}
    (between,) = [line for line in waterfall.picture(request, 80) if line.startswith(waterfall.BETWEEN)]
    assert between.endswith("◀ 99%")


def test_a_request_without_steps_says_so() -> None:
    assert list(waterfall.picture({**REQUEST, "steps": []}, 80)) == ["no steps are known of it"]


steps = st.lists(
    st.tuples(
        st.text("abc ", min_size=1, max_size=60),
        st.integers(0, 5),
        st.integers(-(10**6), 2 * 10**9),
        st.integers(0, 2 * 10**9),
        st.sampled_from(["", "ValueError", "unfinished"]),
    ),
    max_size=12,
)


@given(steps, st.integers(0, 10**9), st.integers(0, 300), st.booleans(), st.booleans())
def test_whatever_is_told_a_picture_keeps_to_its_columns(
    told: list[Any], duration: int, columns: int, everything: bool, unicode: bool
) -> None:
    request = {**REQUEST, "steps": told, "duration_ns": duration}
    width = max(waterfall.LEAST_COLUMNS, min(columns, waterfall.MOST_COLUMNS))
    for line in waterfall.picture(request, columns, everything=everything, unicode=unicode):
        assert len(line) <= width


def test_chrome_s_events_are_complete_ones_in_microseconds_a_thread_a_request() -> None:
    document = json.loads(json.dumps(waterfall.chrome([REQUEST, {**REQUEST, "container": ""}])))
    events = document["traceEvents"]
    assert all({"name", "ph", "pid"} <= set(event) for event in events)
    complete = [event for event in events if event["ph"] == "X"]
    assert len(complete) == 12
    assert {(event["tid"], event["name"]) for event in complete if event["dur"] == 100_000} == {
        (1, "create"),
        (2, "create"),
    }
    policy = next(event for event in complete if event["name"].startswith("policy"))
    assert (policy["ts"], policy["dur"]) == ((START + 2 * MS) / 1000, 9000)
    assert policy["args"] == {"error": "PolicyDenied"}
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert names == {1: "create web", 2: "create"}


# The verb


class Client:
    """Answers as a daemon that has kept some requests."""

    def __init__(self, counted: seen.Seen | None) -> None:
        self.counted = counted

    def properties(self, container_id: str, kinds: list[str]) -> dict[str, Any]:
        (kind,) = kinds
        return {} if self.counted is None else {kind: asked(self.counted, kind.partition(":")[2])}


def run(counted: seen.Seen | None, *arguments: str) -> Result:
    return CliRunner().invoke(trace, arguments, obj=Client(counted))


@pytest.fixture
def counted() -> seen.Seen:
    made = seen.Seen()
    add(made, "negotiate", number=0x10000000 << 96, container="")
    add(made, number=0x20000000 << 96, activity=GUID)
    add(made, "delete", number=0x30000000 << 96, activity=GUID, error="no such container")
    add(made, "start", number=0x40000000 << 96)
    return made


def test_the_verb_lists_what_is_kept_with_ids_just_long_enough(counted: seen.Seen) -> None:
    listed = run(counted).output.splitlines()
    assert listed[0].split() == ["WHEN", "ID", "REQUESTS", "CONTAINER", "MS"]
    assert [line.split()[1:] for line in listed[1:]] == [
        ["6f1c2a90", "create", "delete", "web", "20.0", "failed"],
        ["40000000", "start", "web", "10.0"],
    ]
    assert "negotiate" in run(counted, "--all").output
    assert len(run(counted, "-n", "1").output.splitlines()) == 2


def test_the_verb_shows_the_requests_of_an_id(counted: seen.Seen) -> None:
    shown = run(counted, "6f1c2a90")
    assert shown.exit_code == 0
    assert "create  web  10.000 ms" in shown.output
    assert "failed: no such container" in shown.output
    assert max(map(len, shown.output.splitlines())) <= 80


def test_the_verb_tells_what_is_kept_when_it_knows_nothing(counted: seen.Seen) -> None:
    unknown = run(counted, "nobody")
    assert unknown.exit_code == 1
    assert "no trace of nobody; kept are the last 4 requests" in unknown.output
    add(counted, number=0x41000000 << 96)
    assert "4 is the beginning of several: 40000000" in run(counted, "4").output
    assert "keeps no traces" in run(None).output
    empty = seen.Seen()
    assert "nothing was asked" in run(empty).output
    empty.keep(0)
    assert "trace_spans is 0" in run(empty, "x").output


def test_the_verb_writes_json_and_chrome_s_events(counted: seen.Seen, tmp_path: Any) -> None:
    assert json.loads(run(counted, GUID, "--json").output)["requests"][0]["name"] == "create"
    assert len(json.loads(run(counted, "--json").output)["requests"]) == 4
    assert run(counted, GUID, "--chrome", str(tmp_path / "t")).output == ""
    assert json.loads((tmp_path / "t").read_text())["traceEvents"]
    assert run(counted, "--chrome", str(tmp_path / "t")).exit_code == 2


def test_a_long_name_gives_way_in_the_list() -> None:
    long = seen.Seen()
    add(long, number=1, container="c" * 128)
    assert max(map(len, listing(asked(long), 20, 80).splitlines())) <= 80
    assert max(map(len, report(asked(long, "0" * 31), 80).splitlines())) <= 80


def test_what_was_left_out_of_a_report_is_said() -> None:
    told = {"requests": [REQUEST], "left_out": 3}
    assert report(told, 80).endswith("3 earlier requests of this id are left out")
    assert time.strftime("%H:%M:%S", time.localtime(START / 10**9)) in report(told, 80)
