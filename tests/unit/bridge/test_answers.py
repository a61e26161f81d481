from __future__ import annotations

import json
from typing import Any

import pytest

from uvmd.bridge.answers import failure, success
from uvmd.bridge.frames import split
from uvmd.bridge.hresult import HResult
from uvmd.bridge.identifiers import ZERO_GUID, Message
from uvmd.bridge.records import UNKNOWN_LINE, message_of, record_of
from uvmd.errors import Failed, RuntimeFailed


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def body(frame: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(split(frame).body)
    return found


@pytest.mark.parametrize("activity", [ZERO_GUID, "0f8fad5b-d9cb-469f-a165-70867728950e", ""])
def test_a_success_says_zero_and_whose_it_is(activity: str) -> None:
    frame = split(success(Message.START, 7, activity, None))
    assert (frame.type, frame.id) == (0x20100201, 7)
    expected = {"Result": 0, "ActivityId": activity} if activity else {"Result": 0}
    assert json.loads(frame.body) == expected
    assert body(success(Message.EXECUTE, 7, activity, {"ProcessId": 5})) == expected | {"ProcessId": 5}


def test_a_failure_has_the_common_fields_and_one_record() -> None:
    error = raised(Failed("mount /a on /b: EIO"))
    answer = body(failure(Message.MODIFY, 7, ZERO_GUID, HResult.E_FAIL, "mount /a on /b: EIO", error))
    (record,) = answer.pop("ErrorRecords")
    assert answer == {
        "Result": -2147467259,
        "ActivityId": ZERO_GUID,
        "ErrorMessage": "mount /a on /b: EIO",
    }
    assert (record["Result"], record["Message"]) == (-2147467259, "mount /a on /b: EIO")
    assert (record["ModuleName"], record["FileName"]) == ("gcs", "test_answers.py")
    assert record["FunctionName"] == "raised"
    assert record["Line"] > 0
    assert list(record)[:2] == ["Result", "Message"]


def test_an_error_that_was_never_raised_has_no_place() -> None:
    record = record_of(Failed("x"), HResult.E_FAIL, "x")
    assert (record["FileName"], record["Line"]) == ("", UNKNOWN_LINE)
    assert "StackTrace" not in record
    assert "FunctionName" not in record


def test_the_place_is_that_of_the_innermost_error() -> None:
    def inner() -> None:
        raise OSError(2, "s3cr3t")

    try:
        try:
            inner()
        except OSError as error:
            raise RuntimeFailed("runc: gone") from error
    except RuntimeFailed as error:
        record = record_of(error, HResult.E_FAIL, "runc: gone")
    assert record["FunctionName"] == "inner"
    assert "s3cr3t" not in json.dumps(record)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Failed("dial port 5: refused"), "dial port 5: refused"),
        (Failed(), "HRESULT: 0x80004005"),
        (OSError(5, "x", "/secret"), "system call failed: Input/output error (errno 5)"),
        (OSError("s3cr3t"), "internal error (OSError)"),
        (ValueError("invalid literal: s3cr3t"), "internal error (ValueError)"),
    ],
)
def test_only_texts_of_ours_are_shown(error: BaseException, text: str) -> None:
    assert message_of(error, HResult.E_FAIL) == text
