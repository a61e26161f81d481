"""The base of every wire model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from uvmd.api.wire import I32, I64, U8, U16, U32, U64, Field, Items, WireModel


class Inner(WireModel):
    path: str = Field("", alias="Path")


class Sample(WireModel):
    u8: U8 = Field(0, alias="U8")
    u16: U16 = Field(0, alias="U16")
    u32: U32 = Field(0, alias="U32")
    u64: U64 = Field(0, alias="U64")
    i32: I32 = Field(0, alias="I32")
    i64: I64 = Field(0, alias="I64")
    flag: bool = Field(False, alias="Flag")
    layers: Items[Inner] = Field((), alias="Layers")
    ports: Items[U16] = Field((), alias="Ports")
    secret: str = Field("", alias="Secret", repr=False)


RANGES = {
    "U8": (0, 2**8 - 1),
    "U16": (0, 2**16 - 1),
    "U32": (0, 2**32 - 1),
    "U64": (0, 2**64 - 1),
    "I32": (-(2**31), 2**31 - 1),
    "I64": (-(2**63), 2**63 - 1),
}


@given(key=st.sampled_from(sorted(RANGES)), value=st.integers(-(2**65), 2**65))
def test_an_integer_is_accepted_exactly_inside_its_width(key: str, value: int) -> None:
    low, high = RANGES[key]
    if low <= value <= high:
        assert getattr(Sample.model_validate({key: value}), key.lower()) == value
    else:
        with pytest.raises(ValidationError):
            Sample.model_validate({key: value})


@pytest.mark.parametrize("value", ["1", 1.0, True, [1], {}])
def test_nothing_but_an_integer_is_an_integer(value: object) -> None:
    with pytest.raises(ValidationError):
        Sample.model_validate({"U32": value})


def test_a_missing_key_takes_the_default_and_an_unknown_key_is_ignored() -> None:
    sample = Sample.model_validate({"FromTheFuture": {"a": 1}})
    assert (sample.u8, sample.flag, sample.layers) == (0, False, ())


def test_the_attribute_name_is_no_second_spelling_of_a_key() -> None:
    assert Sample.model_validate({"u8": 7}).u8 == 0


def test_a_model_cannot_be_changed_after_the_policy_saw_it() -> None:
    sample = Sample.model_validate({"U8": 7})
    with pytest.raises(ValidationError):
        sample.u8 = 8


def test_an_error_does_not_show_the_value() -> None:
    with pytest.raises(ValidationError) as caught:
        Sample.model_validate({"U8": "hunter2", "Secret": 5})
    assert "hunter2" not in str(caught.value)


def test_a_secret_field_stays_out_of_the_repr() -> None:
    assert "hunter2" not in repr(Sample.model_validate({"Secret": "hunter2"}))


def test_a_list_inside_a_model_is_decoded_as_a_tuple_of_models() -> None:
    sample = Sample.model_validate({"Layers": [{"Path": "/a"}, {}]})
    assert [layer.path for layer in sample.layers] == ["/a", ""]


@pytest.mark.parametrize("value", [["1"], [1.0], [70000], {"0": 1}, "1"])
def test_the_items_of_a_list_are_as_strict_as_anything_else(value: object) -> None:
    with pytest.raises(ValidationError):
        Sample.model_validate({"Ports": value})
