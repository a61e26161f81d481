"""The decoder against an oracle of Go's rules that shares no code with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd import codec
from uvmd.api.wire import I32, U8, U64, Field, Items, WireModel
from uvmd.codec.decode import decode
from uvmd.codec.shape import shape_of, where
from uvmd.errors import InvalidMessage


class Inner(WireModel):
    lun: U8 = Field(default=0, alias="Lun")
    name: str = Field(default="", alias="Name")


class Outer(WireModel):
    id: str = Field(default="", alias="Id")
    small: U8 = Field(default=0, alias="Small")
    large: U64 = Field(default=0, alias="Large")
    signed: I32 = Field(default=0, alias="Signed")
    flag: bool = Field(default=False, alias="Flag")
    inner: Inner = Field(default_factory=Inner, alias="Inner")
    maybe: Inner | None = Field(default=None, alias="Maybe")
    many: list[Inner] = Field(default_factory=list, alias="Many")
    texts: Items[str] = Field(default=(), alias="Texts")
    numbers: list[U8] = Field(default_factory=list, alias="Numbers")
    env: dict[str, str] = Field(default_factory=dict, alias="Env")
    by_name: dict[str, Inner] = Field(default_factory=dict, alias="ByName")
    free: Any = Field(default=None, alias="Free")


class Nested(WireModel):
    below: list[Nested] = Field(default_factory=list, alias="Below")
    lun: U8 = Field(default=0, alias="Lun")


def decoded(text: str, *, strict: bool = False) -> Outer:
    return decode(text, Outer, what="body", strict=strict)


def refusal(text: str, *, strict: bool = False) -> str:
    with pytest.raises(InvalidMessage) as caught:
        decoded(text, strict=strict)
    return str(caught.value)


# The oracle: a field table, and Go's assignment rules written down again.

INTEGERS = {"small": (0, 255), "large": (0, 2**64 - 1), "signed": (-(2**31), 2**31 - 1), "lun": (0, 255)}
OUTER = ("id", "small", "large", "signed", "flag", "inner", "texts", "env")
INNER = ("lun", "name")


class Mismatch(Exception):
    pass


def go_scalar(field: str, value: Any) -> Any:
    if field in INTEGERS:
        low, high = INTEGERS[field]
        if type(value) is not int or not low <= value <= high:
            raise Mismatch(field)
    elif type(value) is not (bool if field == "flag" else str):
        raise Mismatch(field)
    return value


def go_assign(target: dict[str, Any], known: tuple[str, ...], pairs: Any) -> None:
    if not isinstance(pairs, Pairs):
        raise Mismatch("object")
    # Go decodes every one of a key's duplicates into the same field, so that it merges objects
    # and refuses a wrong type that a later one replaces. Here the last counts (docs/protocol.md).
    last = {key.lower(): value for key, value in pairs.items if value is not None}
    for field, value in last.items():
        if field not in known:
            continue
        if field == "inner":
            fresh: dict[str, Any] = {"lun": 0, "name": ""}
            go_assign(fresh, INNER, value)
            target[field] = fresh
        elif field == "texts":
            if type(value) is not list:
                raise Mismatch(field)
            target[field] = ["" if item is None else go_scalar("name", item) for item in value]
        elif field == "env":
            if not isinstance(value, Pairs):
                raise Mismatch(field)
            target[field] = {}
            for name, item in value.items:
                target[field][name] = "" if item is None else go_scalar("name", item)
        else:
            target[field] = go_scalar(field, value)


class Pairs:
    """An object as a list of pairs, so that a key can come twice."""

    def __init__(self, items: list[tuple[str, Any]]) -> None:
        self.items = items

    def text(self) -> str:
        return "{" + ",".join(f"{json.dumps(key)}:{as_text(value)}" for key, value in self.items) + "}"

    def __repr__(self) -> str:
        return self.text()


def as_text(value: Any) -> str:
    if isinstance(value, Pairs):
        return value.text()
    if isinstance(value, list):
        return "[" + ",".join(map(as_text, value)) + "]"
    return json.dumps(value)


def spelled(names: tuple[str, ...]) -> st.SearchStrategy[str]:
    return st.sampled_from(names).flatmap(
        lambda name: st.sampled_from([name, name.upper(), name.title(), name.swapcase()])
    )


edges = st.sampled_from([0, 1, -1, 255, 256, 2**31 - 1, 2**31, -(2**31), 2**64 - 1, 2**64])
scalars = st.none() | st.booleans() | edges | st.sampled_from([1.5, 1.0]) | st.text(max_size=3)
inners = st.lists(st.tuples(spelled(INNER) | st.text(max_size=2), scalars), max_size=4).map(Pairs)
# Keys of a map are data: no two the same, so that no rule about duplicates is needed.
maps = st.dictionaries(st.text(max_size=2), scalars, max_size=3).map(lambda d: Pairs(list(d.items())))
fields = scalars | inners | maps | st.lists(scalars, max_size=3)
bodies = st.lists(st.tuples(spelled(OUTER) | st.text(max_size=2), fields), max_size=6).map(Pairs)


@given(bodies)
def test_the_decoder_agrees_with_go(body: Pairs) -> None:
    expected: dict[str, Any] = {
        "id": "",
        "small": 0,
        "large": 0,
        "signed": 0,
        "flag": False,
        "inner": {"lun": 0, "name": ""},
        "texts": [],
        "env": {},
    }
    try:
        go_assign(expected, OUTER, body)
    except Mismatch:
        assert "body." in refusal(body.text())
        return
    got = decoded(body.text())
    assert {
        "id": got.id,
        "small": got.small,
        "large": got.large,
        "signed": got.signed,
        "flag": got.flag,
        "inner": {"lun": got.inner.lun, "name": got.inner.name},
        "texts": list(got.texts),
        "env": got.env,
    } == expected


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"Small":"4"}', "body.Small: should be an integer"),
        ('{"Small":true}', "body.Small: should be an integer"),
        ('{"Small":1.0}', "body.Small: should be an integer"),
        ('{"small":-1}', "body.Small: should be greater than or equal to 0"),
        ('{"Small":256}', "body.Small: should be less than or equal to 255"),
        ('{"Id":1}', "body.Id: should be a string"),
        ('{"Flag":0}', "body.Flag: should be true or false"),
        ('{"Inner":[]}', "body.Inner: should be an object"),
        ('{"Inner":"x"}', "body.Inner: should be an object"),
        ('{"inner":{"LUN":"x"}}', "body.Inner.Lun: should be an integer"),
        ('{"Many":{}}', "body.Many: should be a list"),
        ('{"Many":[{},{"Lun":999}]}', "body.Many[1].Lun: should be less than or equal to 255"),
        ('{"Texts":["a",2]}', "body.Texts[1]: should be a string"),
        ('{"Texts":"a"}', "body.Texts: should be a list"),
        ('{"Env":[]}', "body.Env: should be an object"),
        ('{"Env":{"TOKEN":5}}', "body.Env[*]: should be a string"),
        ('{"ByName":{"secret":{"Lun":-1}}}', "body.ByName[*].Lun: should be greater than or equal to 0"),
        ("[]", "body: should be an object"),
        ('"x"', "body: should be an object"),
    ],
)
def test_an_error_names_the_field_and_the_reason(text: str, error: str) -> None:
    assert refusal(text) == error


def test_null_means_nothing_was_sent() -> None:
    assert decoded("null") == Outer()
    assert decoded(json.dumps({field.alias: None for field in Outer.model_fields.values()})) == Outer()


def test_null_inside_a_list_or_a_map_is_a_zero_value() -> None:
    got = decoded('{"Many":[null],"Texts":[null],"Numbers":[null,3],"Env":{"A":null},"ByName":{"x":null}}')
    assert got.many == [Inner()]
    assert got.texts == ("",)
    assert got.numbers == [0, 3]
    assert got.env == {"A": ""}
    assert got.by_name == {"x": Inner()}


def test_free_values_are_not_touched() -> None:
    free = {"id": None, "ID": [None], "Lun": {"a": None}}
    assert decoded(json.dumps({"free": free})).free == free


def test_keys_of_maps_are_data_and_not_folded() -> None:
    assert decoded('{"Env":{"PATH":"1","path":"2"}}', strict=True).env == {"PATH": "1", "path": "2"}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"Id":"a","id":"b"}', "body.Id is sent twice"),
        ('{"Inner":{"Lun":1,"LUN":1}}', "body.Inner.Lun is sent twice"),
        ('{"Many":[{"Name":"","name":""}]}', "body.Many.Name is sent twice"),
        ('{"Id":"a","Id":"b"}', "body: an object has a key twice"),
    ],
)
def test_strict_refuses_what_could_be_read_in_two_ways(text: str, error: str) -> None:
    assert refusal(text, strict=True) == error
    decoded(text)


def test_values_can_be_decoded_in_a_second_step() -> None:
    settings = codec.parse('{"lun":7}', what="body")
    assert codec.decode_value(settings, Inner, what="body.Settings").lun == 7
    with pytest.raises(InvalidMessage, match=r"^body.Settings: should be an object$"):
        codec.decode_value([], Inner, what="body.Settings")


def test_a_model_may_contain_itself() -> None:
    got = decode('{"below":[{"below":[{"lun":1}]}]}', Nested, what="body")
    assert got.below[0].below[0].lun == 1
    with pytest.raises(InvalidMessage, match=r"^body.Below\[0\].Lun: "):
        decode('{"below":[{"lun":-1}]}', Nested, what="body")


def test_a_path_ends_where_the_models_knowledge_ends() -> None:
    assert where(shape_of(Outer), ("Free", "secret", "deeper")) == ".Free"
    assert where(shape_of(Outer), ("Env", "TOKEN")) == ".Env[*]"
