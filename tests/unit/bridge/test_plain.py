"""What is read by hand must agree with the models."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd import codec
from uvmd.bridge.identifiers import ZERO_GUID
from uvmd.bridge.messages import NegotiateRequest, Request, WaitRequest
from uvmd.bridge.plain import NOTHING, check_base, is_guid, read_common, read_negotiate, read_wait
from uvmd.errors import InvalidMessage

negotiated = ("MinimumVersion", "MaximumVersion", "UvmdEvents")
names = ("ContainerId", "ActivityId", "otsc", *negotiated, "ProcessId", "TimeoutInMs", "x")
keys = st.sampled_from(names).flatmap(lambda name: st.sampled_from([name, name.lower(), name.upper()]))
edges = st.sampled_from([0, 4, -1, 2**32 - 1, 2**32, True, 1.0])
scalars = st.none() | edges | st.text(max_size=3)
items = scalars | st.dictionaries(st.text(max_size=2), scalars, max_size=2) | st.lists(scalars, max_size=2)
bodies = st.none() | st.dictionaries(keys, items, max_size=5) | st.lists(scalars, max_size=2) | st.integers()


def outcome(read: Any, *arguments: Any, **options: Any) -> Any:
    try:
        return read(*arguments, **options)
    except InvalidMessage:
        return InvalidMessage


@given(bodies, st.booleans())
def test_negotiate_read_by_hand_is_what_its_model_says(body: Any, strict: bool) -> None:
    model = outcome(codec.decode_value, body, NegotiateRequest, what="body", strict=strict)
    expected = (
        model
        if model is InvalidMessage
        else (
            model.minimum_version,
            model.maximum_version,
            model.uvmd_events,
        )
    )
    assert outcome(read_negotiate, body, strict=strict) == expected


@given(bodies, st.booleans())
def test_a_wait_read_by_hand_is_what_its_model_says(body: Any, strict: bool) -> None:
    model = outcome(codec.decode_value, body, WaitRequest, what="body", strict=strict)
    expected = model if model is InvalidMessage else (model.container_id, model.process_id, model.timeout_ms)
    assert outcome(read_wait, body, strict=strict) == expected


@given(bodies, st.booleans())
def test_a_base_read_by_hand_is_what_its_model_says(body: Any, strict: bool) -> None:
    model = outcome(codec.decode_value, body, Request, what="body", strict=strict)
    assert (outcome(check_base, body, strict=strict) is InvalidMessage) == (model is InvalidMessage)
    if model is not InvalidMessage:
        common = read_common(body)
        assert common.container_id == model.container_id
        assert common.activity_id == model.activity_id


@given(bodies)
def test_reading_the_common_fields_never_fails(body: Any) -> None:
    read_common(body)


def test_a_field_of_the_wrong_type_leaves_the_others_readable() -> None:
    common = read_common({"containerid": 5, "ActivityId": ZERO_GUID, "otsc": {"a": 1, "traceparent": "x"}})
    assert common.container_id == ""
    assert common.activity_id == ZERO_GUID
    assert common.trace == {"traceparent": "x"}
    assert read_common([1]) == NOTHING


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (ZERO_GUID, True),
        ("0f8fad5b-D9CB-469f-a165-70867728950e", True),
        ("", False),
        ("0f8fad5bd9cb469fa16570867728950e", False),
        ("{0f8fad5b-d9cb-469f-a165-70867728950e}", False),
        ("0f8fad5b-d9cb-469f-a165-70867728950g", False),
        ("0f8fad5b-d9cb-469f-a165-70867728950e\n", False),
        ("٠f8fad5b-d9cb-469f-a165-70867728950e", False),
    ],
)
def test_only_what_a_host_parses_is_a_guid(text: str, answer: bool) -> None:
    assert is_guid(text) is answer
