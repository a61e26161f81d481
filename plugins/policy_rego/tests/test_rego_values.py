"""Versions, numbers, JSON as Go writes it, patterns and the metadata store."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd_policy_rego.engine import Trials
from uvmd_policy_rego.patterns import translate
from uvmd_policy_rego.store import MetadataError, Operation, Store, parse_operations
from uvmd_policy_rego.values import compare_versions, go_json, to_number

compiles = Trials().compiles
ORDERED = ["0.0.1", "v0.1.0-1", "0.1.0-alpha", "0.1.0-alpha.1", "0.1.0-alpha.b", "0.1.0", "1.2.3", "10.0.0"]
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def test_versions_are_ordered_as_semver_says() -> None:
    for at, one in enumerate(ORDERED):
        for beside, other in enumerate(ORDERED):
            assert compare_versions(one, other) == (at > beside) - (at < beside), (one, other)
    assert compare_versions("1.0.0+a", "v1.0.0+b") == 0


@pytest.mark.parametrize(
    "text", ["1", "1.2", "1.2.3.4", "1.2.x", "", None, 1, "1.2.9223372036854775808", "1.2.3-", "1.2.3 "]
)
def test_what_is_no_version_compares_with_nothing(text: Any) -> None:
    assert compare_versions(text, "1.0.0") is None


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("1", 1),
        ("-2", -2),
        ("1.5", 1.5),
        ("1e3", 1000),
        (None, 0),
        (True, 1),
        (False, 0),
        (7, 7),
        ("1" * 20, int("1" * 20)),
    ],
)
def test_what_stands_for_a_number(value: Any, number: float) -> None:
    assert to_number(value) == number


@pytest.mark.parametrize("value", ["", " 1", "0x10", "abc", "1.2.3", "inf", "NaN", "1_0", "1e999", [], {}])
def test_what_stands_for_no_number(value: Any) -> None:
    assert to_number(value) is None


@given(documents)
def test_json_as_go_writes_it_says_the_same(value: Any) -> None:
    text = go_json(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")


@pytest.mark.parametrize(
    "pattern",
    [
        "a(",
        "(?=a)",
        "(?!a)",
        r"\1",
        "a**",
        "a{1001}",
        "a{3,2}",
        r"\u0041",
        "[",
        "[z-a]",
        "(?x)a",
        r"a\\\8",
        "*a",
        "a\\",
    ],
)
def test_what_re2_refuses_matches_nothing(pattern: str) -> None:
    translated = translate(pattern)
    assert translated is None or not compiles(translated)


@given(st.text(max_size=12))
def test_quoted_text_matches_itself_alone(text: str) -> None:
    translated = translate("^" + re.sub(r"([][\\.+*?()|{}^$])", r"\\\1", text) + "$")
    assert translated is not None
    assert compiles(translated)


@given(st.text(alphabet="ab[]()\\dDwWsSQE{}0123,*+?|^$-:P<>i.&", max_size=14))
def test_no_pattern_makes_the_translation_raise(pattern: str) -> None:
    translated = translate(pattern)
    assert translated is None or isinstance(compiles(translated), bool)


def operation(**changes: Any) -> dict[str, Any]:
    return {"name": "n", "action": "add", "key": "k", "value": 1} | changes


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (1, "unable to load metadata object"),
        (operation(type=1), "unable to load metadata type"),
        (operation(name=1), "unable to load metadata name"),
        (operation(action=None), "unable to load metadata action"),
        (operation(key=1), "unable to load metadata key"),
        ({"name": "n", "action": "add", "key": "k"}, "missing metadata value"),
        ({"name": "n", "action": "remove", "type": "set"}, "missing metadata value"),
        ({"name": "n", "action": "remove"}, "missing metadata key"),
    ],
)
def test_operations_that_cannot_be_read(one: Any, text: str) -> None:
    with pytest.raises(MetadataError, match=f"^error loading metadata operation: {text}$"):
        parse_operations([one])


def test_operations_that_do_not_apply() -> None:
    store = Store()
    store.apply(parse_operations([operation(), operation(action="add", type="set", name="s")]))
    for one, text in [
        (operation(), r"cannot add metadata value, key n\[k\] already exists"),
        (operation(action="move"), "unrecognized metadata action: move for map"),
        (operation(name="s", type="set", action="update"), "unrecognized metadata action: update for set"),
        (operation(type="list"), "unrecognized metadata type: list"),
        (operation(name="s"), "metadata s has the wrong type"),
    ]:
        with pytest.raises(MetadataError, match=text):
            store.apply(parse_operations([one]))
    assert store.document("n") == [{"k": 1}]


changes = st.builds(
    lambda name, action, key, value: Operation("map", name, action, key, value),
    st.sampled_from(["a", "b"]),
    st.sampled_from(["update", "remove"]),
    st.sampled_from(["x", "y"]),
    documents,
) | st.builds(
    lambda action, value: Operation("set", "s", action, "", value),
    st.sampled_from(["add", "remove"]),
    documents,
)


@given(st.lists(changes, max_size=6), st.lists(changes, max_size=6))
def test_a_restored_store_is_as_it_was(before: list[Operation], after: list[Operation]) -> None:
    store = Store()
    store.apply(before)
    digest, snapshot = store.digest(), store.snapshot()
    store.apply(after)
    store.restore(snapshot)
    assert store.digest() == digest


@given(st.lists(documents, max_size=8))
def test_a_set_holds_each_value_once(values: list[Any]) -> None:
    store = Store()
    store.apply([Operation("set", "s", "add", "", value) for value in values])
    held = store.document("s")[0] if values else []
    texts = [json.dumps(value, sort_keys=True) for value in held]
    assert len(texts) == len(set(texts))
    assert set(texts) == {json.dumps(value, sort_keys=True) for value in values}
