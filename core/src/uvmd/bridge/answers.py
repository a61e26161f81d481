"""Responses as frames. The result is always the first key, as the reference writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from uvmd import codec
from uvmd.bridge.frames import HEADER, HEADER_BYTES
from uvmd.bridge.hresult import HResult
from uvmd.bridge.identifiers import ZERO_GUID, response_type
from uvmd.bridge.limits import fit
from uvmd.bridge.records import record_of

_PLAIN_SUCCESS = codec.dumps({"Result": 0, "ActivityId": ZERO_GUID})


def success(request_type: int, id_: int, activity_id: str, fields: Mapping[str, Any] | None) -> bytes:
    """Return the frame that says it was done. ``activity_id`` is a GUID, or empty.

    Raises:
        TooLarge: the fields are more than a host accepts.
    """
    if not fields and activity_id == ZERO_GUID:
        return _frame(request_type, id_, _PLAIN_SUCCESS)
    answer = _common(HResult.S_OK, activity_id)
    if fields:
        answer.update(fields)
    return _frame(request_type, id_, fit(answer))


def failure(
    request_type: int, id_: int, activity_id: str, code: HResult, message: str, error: BaseException
) -> bytes:
    """Return the frame that says why it was not done: the common fields and one record."""
    answer = _common(code, activity_id)
    answer["ErrorMessage"] = message
    answer["ErrorRecords"] = [record_of(error, code, message)]
    return _frame(request_type, id_, fit(answer))


def _common(code: HResult, activity_id: str) -> dict[str, Any]:
    if activity_id:
        return {"Result": code.signed, "ActivityId": activity_id}
    return {"Result": code.signed}


def _frame(request_type: int, id_: int, body: bytes) -> bytes:
    return HEADER.pack(response_type(request_type), HEADER_BYTES + len(body), id_) + body
