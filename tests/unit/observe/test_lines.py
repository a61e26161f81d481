from __future__ import annotations

import json
import logging
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.errors import Failed
from uvmd.observe.lines import MAX_LINE_BYTES, facts_of, json_line, text_line, time_text

values = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=3)
trees = st.recursive(
    values,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(values, inner, max_size=3),
    max_leaves=5,
)
facts = st.dictionaries(st.text(), trees, max_size=5)


def record(message: str = "a message", level: int = logging.INFO, error: Any = None, **extra: Any) -> Any:
    made = logging.LogRecord("uvmd.room", level, "file.py", 1, message, (), error)
    made.__dict__.update(extra)
    return made


def parsed(line: bytes) -> dict[str, Any]:
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert len(line) <= MAX_LINE_BYTES
    found: dict[str, Any] = json.loads(line)
    return found


@given(st.text(), facts, st.booleans())
def test_whatever_is_logged_is_one_json_object_on_one_line(message: str, extra: Any, scrubbed: bool) -> None:
    made = record(message.replace("%", ""), facts=extra)
    found = parsed(json_line(made, scrubbed=scrubbed))
    assert {"time", "level", "msg"} <= set(found)


@given(st.text(), facts)
def test_a_line_for_people_is_one_line_too(message: str, extra: Any) -> None:
    line = text_line(record(message.replace("%", ""), facts=extra), scrubbed=True)
    assert line.count(b"\n") == 1
    assert len(line) <= MAX_LINE_BYTES


def test_a_line_has_time_level_message_room_and_facts() -> None:
    found = parsed(json_line(record(container="c", duration_ms=1.5), scrubbed=True))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", found.pop("time"))
    assert found == {
        "level": "info",
        "msg": "a message",
        "room": "uvmd.room",
        "container": "c",
        "duration_ms": 1.5,
    }


def test_time_has_nanoseconds_and_is_in_utc() -> None:
    assert time_text(0.5) == "1970-01-01T00:00:00.500000000Z"
    assert time_text(1e9) == "2001-09-09T01:46:40.000000000Z"
    assert time_text(0.5) == "1970-01-01T00:00:00.500000000Z"


NAMES = [(10, "debug"), (20, "info"), (30, "warning"), (40, "error"), (50, "error"), (33, "info")]


@pytest.mark.parametrize(("level", "name"), NAMES)
def test_levels_have_the_names_that_a_host_knows(level: int, name: str) -> None:
    assert parsed(json_line(record(level=level), scrubbed=True))["level"] == name


def test_a_fact_does_not_take_the_place_of_the_message() -> None:
    found = parsed(json_line(record(facts={"msg": "x", "level": "y", "name": "z"}), scrubbed=True))
    assert (found["msg"], found["msg_"], found["level"], found["name"]) == ("a message", "x", "info", "z")


def error_facts(error: BaseException, *, scrubbed: bool) -> dict[str, Any]:
    try:
        raise error
    except BaseException as caught:
        return facts_of(record(error=(type(caught), caught, caught.__traceback__)), scrubbed=scrubbed)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError("s3cr3t"), "KeyError"),
        (Failed("mount /a: EIO"), "Failed: mount /a: EIO"),
        (OSError(5, "x", "/s3cr3t"), "OSError: Input/output error (errno 5)"),
    ],
)
def test_an_exception_shows_only_what_is_certain_to_hold_no_value(error: BaseException, text: str) -> None:
    found = error_facts(error, scrubbed=True)
    assert found["error"] == text
    assert "error_facts" in found["stack"]
    assert "s3cr3t" not in str(found)


def test_without_scrubbing_the_whole_text_is_shown() -> None:
    assert error_facts(KeyError("why"), scrubbed=False)["error"] == "KeyError: 'why'"
    assert facts_of(record(env=["A=1"]), scrubbed=False) == {"env": ["A=1"]}


def test_a_long_fact_is_cut_and_the_others_stay() -> None:
    found = parsed(json_line(record(stack="x" * 10_000, container="c"), scrubbed=True, lost=3))
    assert found["container"] == "c"
    assert found["stack"].endswith(" [cut]")
    assert found["lost_lines"] == "3"


def test_thousands_of_facts_leave_the_message() -> None:
    found = parsed(json_line(record(facts={f"k{n}": "x" * 50 for n in range(5000)}), scrubbed=True))
    assert found["msg"].startswith("a message")


def test_a_line_for_people_reads_from_left_to_right() -> None:
    line = text_line(record("a\nmessage", logging.WARNING, container="c", env="A=1"), scrubbed=True).decode()
    assert re.fullmatch(r"\S+Z WARNING a\\nmessage container=c env=<scrubbed>\n", line)
