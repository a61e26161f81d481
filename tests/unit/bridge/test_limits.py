from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.bridge.limits import MARK, MAX_BODY_BYTES, TooLarge, fit


def error_answer(message: str, stack: str) -> dict[str, Any]:
    record = {"Result": -1, "Message": message, "StackTrace": stack, "FileName": "a.py", "Line": 1}
    return {"Result": -1, "ErrorMessage": message, "ErrorRecords": [record]}


def fitted(answer: dict[str, Any]) -> dict[str, Any]:
    body = fit(answer)
    assert len(body) <= MAX_BODY_BYTES
    found: dict[str, Any] = json.loads(body)
    return found


def test_what_fits_is_not_touched() -> None:
    answer = {"Result": 0, "GuestStacks": "x" * (MAX_BODY_BYTES - 29)}
    assert len(fit(answer)) == MAX_BODY_BYTES
    assert MARK not in answer["GuestStacks"]


def test_the_stack_is_cut_before_the_message() -> None:
    found = fitted(error_answer("m" * 100, "s" * 100_000))
    assert found["ErrorMessage"] == "m" * 100
    assert found["ErrorRecords"][0]["StackTrace"].endswith("s" + MARK)


def test_the_message_is_cut_alike_in_both_places() -> None:
    found = fitted(error_answer("m" * 100_000, "s" * 100_000))
    assert found["ErrorRecords"][0]["StackTrace"] == MARK
    assert found["ErrorMessage"] == found["ErrorRecords"][0]["Message"]
    assert len(found["ErrorMessage"]) > 30_000


def test_a_dump_of_stacks_is_cut_at_its_end() -> None:
    found = fitted({"Result": 0, "GuestStacks": "line\n" * 50_000})
    assert found["GuestStacks"].startswith("line\nline")
    assert found["GuestStacks"].endswith(MARK)


def test_a_process_list_is_cut_and_other_properties_are_whole() -> None:
    processes = [{"ProcessId": pid} for pid in range(10_000)]
    properties = json.dumps({"ProcessList": processes, "LCOWMetrics": {"cpu": 1}})
    found = json.loads(fitted({"Result": 0, "Properties": properties})["Properties"])
    assert found["LCOWMetrics"] == {"cpu": 1}
    assert found["ProcessList"] == processes[: len(found["ProcessList"])]
    assert len(found["ProcessList"]) > 2000


@pytest.mark.parametrize(
    "answer",
    [
        {"Result": 0, "Capabilities": "x" * 70_000},
        {"Result": 0, "Properties": json.dumps({"LCOWMetrics": "x" * 70_000})},
        {"Result": 0, "Properties": json.dumps({"ProcessList": [{}], "LCOWMetrics": "x" * 70_000})},
    ],
)
def test_what_must_not_be_cut_is_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(TooLarge):
        fit(answer)


@given(st.text(min_size=1, max_size=4), st.integers(0, 40_000), st.integers(0, 40_000))
def test_no_text_makes_an_answer_too_large(piece: str, message: int, stack: int) -> None:
    fitted(error_answer(piece * message, piece * stack))
