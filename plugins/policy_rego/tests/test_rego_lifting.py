"""A fragment's lists, lifted out for speed: the same value, and only where that is sure."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uvmd_policy_rego.engine import Engine, EngineError
from uvmd_policy_rego.lifting import lift

HEAD = "package extra\nsvn := 1\n"
LONG = "x" * 500
#: Texts that both languages can hold: no halves of surrogate pairs.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False, width=32)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def value_of(text: str, name: str = "containers", *, old: bool = False) -> list[Any]:
    engine = Engine({}, {})
    engine.add_module("extra.rego", text, old=old)
    engine.set_input("{}")
    return engine.find(f"data.extra.{name}")


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=4), st.sampled_from([None, 1, "\t"]), st.booleans())
def test_a_lifted_list_is_the_same_value(values: list[Any], indent: Any, ascii: bool) -> None:
    written = json.dumps([LONG, *values], indent=indent, ensure_ascii=ascii)
    text = f"{HEAD}containers := {written}\n"
    lifted = lift(text)
    if "`" not in text:
        assert "json.unmarshal" in lifted
        assert lifted.count("\n") == text.count("\n"), "errors keep their line"
    try:
        expected = value_of(text)
    except EngineError:
        return
    assert value_of(lifted) == expected


@pytest.mark.parametrize("assigned", [":=", "=", " := ", "\t=  "])
def test_every_list_of_a_fragment_is_lifted_in_both_languages(assigned: str) -> None:
    names = ("fragments", "containers", "external_processes", "platform_rules", "transparency_trust_lists")
    text = HEAD + "".join(f'{name}{assigned}[{{"a": "{LONG}"}}, 5,\n]\n' for name in names)
    text += "five := containers[1]\n"
    lifted = lift(text)
    assert lifted.count("json.unmarshal") == len(names)
    for name in names:
        assert value_of(lifted, name) == value_of(lifted, name, old=True) == [[{"a": LONG}, 5]]
    assert value_of(lifted, "five") == [5]


@pytest.mark.parametrize(
    "line",
    [
        'containers := ["short"]',
        f'containers := ["{LONG}", parameter("x")]',
        f'containers := ["{LONG}"] with input as 1',
        f'containers := ["{LONG}"][0]',
        f'containers := [{{"a": "{LONG}", "a": 1}}]',
        f'containers := ["{LONG}", NaN]',
        f'containers := ["{LONG}", `raw`]',
        f'containers := ["{LONG}"',
        f'other := ["{LONG}"]',
        f' containers := ["{LONG}"]',
        f'# containers := ["{LONG}"]',
        "containers := " + "[" * 5000,
    ],
)
def test_whatever_is_not_plainly_json_stays_as_it_is(line: str) -> None:
    assert lift(f"{HEAD}{line}\n") == f"{HEAD}{line}\n"


def test_what_a_raw_string_holds_is_not_taken_for_a_list() -> None:
    text = f'{HEAD}a := `\ncontainers := ["{LONG}"]\n`\n'
    assert lift(text) == text


def test_no_line_gets_too_long_for_the_engine() -> None:
    many = [{"name": f"container, number {n}", "args": ['"', "\\", ","]} for n in range(4000)]
    lifted = lift(f"{HEAD}containers := {json.dumps(many)}\n")
    assert max(map(len, lifted.split("\n"))) < 16384
    assert value_of(lifted) == [many]
