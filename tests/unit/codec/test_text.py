from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd import codec
from uvmd.codec.text import MAX_DEPTH, MAX_DIGITS, MAX_VALUES
from uvmd.errors import InvalidMessage

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, width=32)
values = st.recursive(
    scalars.filter(lambda value: value not in (float("inf"), float("-inf"))) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def parse(text: bytes | str, *, strict: bool = False) -> Any:
    return codec.parse(text, what="body", strict=strict)


def refusal(text: bytes | str, *, strict: bool = False) -> str:
    with pytest.raises(InvalidMessage) as caught:
        parse(text, strict=strict)
    return str(caught.value)


@given(values)
def test_what_is_written_is_read_back(value: Any) -> None:
    assert parse(codec.dumps(value)) == value


@given(values)
def test_any_json_of_another_writer_is_read(value: Any) -> None:
    assert parse(json.dumps(value, indent=1)) == value


@given(st.binary(max_size=60))
def test_bytes_are_a_value_or_an_invalid_message(text: bytes) -> None:
    with suppress(InvalidMessage):
        parse(text)


NOT_ONE_VALUE = ["", " ", "{", '{"a":1', "[1]x", '{"a":1} {"b":2}', "{'a':1}", '"\t"', "01", "+1"]


@pytest.mark.parametrize("text", NOT_ONE_VALUE)
def test_anything_but_one_whole_value_is_refused(text: str) -> None:
    assert "not JSON" in refusal(text)


@pytest.mark.parametrize("text", [' {"a" : 1} \r\n\t', b'{"a":1}\n'])
def test_white_space_around_the_value_is_legal(text: str | bytes) -> None:
    assert parse(text) == {"a": 1}


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a":-Infinity}'])
def test_nan_and_infinity_are_not_json(text: str) -> None:
    assert "NaN" in refusal(text)


def test_a_number_too_large_for_a_float_is_refused() -> None:
    assert "too large" in refusal("[1e999]")


def test_invalid_utf8_is_replaced() -> None:
    assert parse(b'"a\xffb"') == "a\ufffdb"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"\ud800"', "\ufffd"),
        (r'"x\uDFFFy"', "x\ufffdy"),
        (r'"\ud83d\ude00"', "\U0001f600"),
        (r'{"\udc00":["\ud800"]}', {"\ufffd": ["\ufffd"]}),
    ],
)
def test_a_lone_surrogate_is_replaced_and_a_pair_is_kept(text: str, value: Any) -> None:
    assert parse(text) == value


@pytest.mark.parametrize("digits", ["18446744073709551615", "-9223372036854775808", "9" * MAX_DIGITS])
def test_every_integer_of_the_protocol_is_exact(digits: str) -> None:
    assert parse(digits) == int(digits)


@pytest.mark.parametrize("digits", ["9" * (MAX_DIGITS + 1), "-" + "1" * (MAX_DIGITS + 1), "1" * 5000])
def test_a_longer_integer_is_refused(digits: str) -> None:
    assert f"more than {MAX_DIGITS} digits" in refusal(f'{{"a":{digits}}}')


@pytest.mark.parametrize(("opener", "closer"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_nesting_is_limited(opener: str, closer: str) -> None:
    step = opener.count("[") + opener.count("{")
    deepest = MAX_DEPTH // step - (step == 1)
    assert parse(opener * deepest + "1" + closer * deepest) is not None
    assert "nested deeper" in refusal(opener * (MAX_DEPTH + 1) + "1" + closer * (MAX_DEPTH + 1))


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a":' * 50_000])
def test_hostile_nesting_does_not_overflow_the_stack(text: str) -> None:
    assert "nested deeper" in refusal(text)


def test_many_shallow_values_are_no_deep_nesting() -> None:
    assert len(parse("[" + ",".join(["[]"] * 5000) + "]")) == 5000


def test_the_number_of_values_is_limited() -> None:
    assert f"more than {MAX_VALUES} values" in refusal("[" + "[]," * MAX_VALUES + "[]]")


def test_a_long_string_is_one_value() -> None:
    assert len(parse(json.dumps("x" * (MAX_VALUES + 10)))) == MAX_VALUES + 10


def test_of_a_key_sent_twice_the_last_one_counts() -> None:
    assert parse('{"a":1,"b":2,"a":3}') == {"a": 3, "b": 2}


def test_a_key_sent_twice_takes_the_place_of_the_later_one() -> None:
    assert list(parse('{"a":1,"A":2,"a":3}').items()) == [("A", 2), ("a", 3)]


def test_a_null_does_not_take_the_place_of_a_value() -> None:
    assert parse('{"a":1,"a":null}') == {"a": 1}
    assert parse('{"a":null,"a":1}') == {"a": 1}


def test_strict_refuses_a_key_sent_twice_at_any_depth() -> None:
    assert "twice" in refusal('{"x":[{"a":1,"a":1}]}', strict=True)
    assert parse('{"env":{"PATH":"1","path":"2"}}', strict=True) == {"env": {"PATH": "1", "path": "2"}}


def test_keys_that_become_one_without_their_surrogates_are_one_key_twice() -> None:
    text = '[{"a\\ud800":1,"a\\udfff":2},{"b\\ud800":3,"b\\udfff":null}]'
    assert parse(text) == [{"a\ufffd": 2}, {"b\ufffd": 3}]
    assert "twice" in refusal(text, strict=True)
    assert parse('{"a\\ud800":"\\udfff","b":1}', strict=True) == {"a\ufffd": "\ufffd", "b": 1}


@pytest.mark.parametrize("text", ['{"a":"hunter2"', '{"a":hunter2}', '{"hunter2":NaN}', '["hunter2]'])
def test_a_refusal_never_quotes_the_text(text: str) -> None:
    assert "hunter2" not in refusal(text)


def test_written_json_is_compact_and_valid_utf8() -> None:
    assert codec.dumps({"a": [1, None], "b": "é"}) == '{"a":[1,null],"b":"é"}'.encode()
    assert codec.dumps("\udcff") == b'"?"'


@pytest.mark.parametrize("value", [float("nan"), b"bytes", object()])
def test_what_json_has_not_is_not_written(value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        codec.dumps(value)
