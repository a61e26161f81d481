"""What Rego leaves to Python compares as Rego does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd_policy_rego.engine import Engine
from uvmd_policy_rego.patterns import matches_simply, translate
from uvmd_policy_rego.predicates import (
    Mounts,
    Pattern,
    Places,
    env_rules,
    mounts_left,
    same,
    same_capabilities,
    same_names,
)
from uvmd_policy_rego.values import canonical

SCALARS = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a", "1", "true", 0.5])
KEYS = st.sampled_from("ab")
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner), max_leaves=6
)


@pytest.fixture(scope="module")
def engine() -> Engine:
    made = Engine({}, {})
    made.add_module(
        "t.rego",
        "package t\nequal := input.a == input.b\nboth if {\n\tis_array(input.a)\n\tis_array(input.b)\n"
        "\tcount(input.a) == count(input.b)\n\tevery x in input.a {\n\t\tx in input.b\n\t}\n"
        "\tevery x in input.b {\n\t\tx in input.a\n\t}\n}\n",
    )
    return made


@given(one=VALUES, other=VALUES)
def test_values_are_the_same_where_the_engine_says_so(engine: Engine, one: Any, other: Any) -> None:
    engine.set_input(canonical({"a": one, "b": other}))
    assert same(one, other) is engine.find("data.t.equal")[0]
    assert same(one, one)


@given(one=st.lists(SCALARS, max_size=4) | SCALARS, other=st.lists(SCALARS, max_size=4) | SCALARS)
def test_lists_hold_the_same_where_the_engine_says_so(engine: Engine, one: Any, other: Any) -> None:
    engine.set_input(canonical({"a": one, "b": other}))
    assert same_names(one, other) is (engine.find("data.t.both") == [True])


def test_numbers_are_equal_by_value_and_true_is_no_number() -> None:
    assert same(1, 1.0)
    assert not same(1, True)
    assert not same("1", 1)
    assert same({"a", "b"}, {"b", "a"})
    assert not same({"a"}, ["a"])
    assert same_names({"a", "b"}, ["b", "a"])
    assert not same_names(["a", "a"], ["a", "b"])


def test_all_five_sets_of_capabilities_must_be_there() -> None:
    names = ("bounding", "effective", "inheritable", "permitted", "ambient")
    whole: dict[str, Any] = {name: ["A"] for name in names}
    assert same_capabilities(whole, {name: {"A"} for name in whole})
    for name in whole:
        assert not same_capabilities({**whole, name: None}, {**whole, name: None})
        assert not same_capabilities({**whole, name: ["B"]}, whole)
    assert not same_capabilities(None, whole)


def anchored(pattern: Any) -> list[Pattern]:
    return [Pattern(f"^{pattern}$", f"<{pattern}>")] if isinstance(pattern, str) else []


def found(rules: Any, envs: Any) -> tuple[Any, ...]:
    sorted_out = env_rules(rules, envs, anchored)
    return tuple(sorted_out[key] for key in ("exact", "left", "patterns", "split", "required"))


def test_variables_that_a_rule_names_are_found_and_the_others_left() -> None:
    whole = {"strategy": "string", "pattern": "A=1", "required": True}
    halves = {"name_strategy": "string", "value_strategy": "string", "name": "B", "value": "2=3"}
    regex = {"strategy": "re2", "pattern": "C=[4-6]", "required": True}
    split = {"name_strategy": "string", "value_strategy": "re2", "name": "D", "value": ".*"}
    rules = [whole, halves, regex, split, None, "x", {"required": False}]
    assert found(rules, ["A=1", "B=2=3", "C=4", 5]) == (
        {"A=1", "B=2=3"}, ["C=4", 5], ["<C=[4-6]>"], [split], [regex],
    )  # fmt: skip
    assert found([whole, {"required": None}], None) == (set(), [], [], [], [whole, {"required": None}])
    assert found(None, ["A=1"]) == (set(), ["A=1"], [], [], [])
    plain = {"strategy": "re2", "pattern": "C=.+", "required": True}
    assert found([plain], ["C=4", "C="]) == ({"C=4"}, ["C="], [], [], [plain])
    # A sign in a name would make one entry of two rules.
    odd = {**halves, "name": "B=2", "value": "3"}
    assert found([odd], ["B=2=3"])[0] == set()


PLACES = Places((("sandbox://", "/box"), ("hugepages://", None)), "plan9://")


def left(constraints: list[Any], mounts: Any) -> list[tuple[Any, ...]]:
    found = mounts_left([Mounts(constraints)], mounts, PLACES, anchored)
    return [(one["at"], one["source"], one["patterns"], one["plan9"]) for one in found]


def test_a_mount_is_held_against_the_constraints_that_it_is_otherwise_as() -> None:
    constraint = {"destination": "/d", "type": "bind", "options": ["ro", "bind"], "source": "s"}
    mount = {"destination": "/d", "type": "bind", "options": ["bind", "ro"], "source": "s"}
    assert left([constraint], [mount]) == []
    odds: list[dict[str, Any]] = [{"type": "t"}, {"options": ["ro"]}, {"options": None}]
    for odd in (*odds, {"source": "x"}, {"destination": "/e"}):
        assert left([constraint], [mount, {**mount, **odd}]) == [
            (1, odd.get("source", "s"), [], False),
        ]
        assert left([{**constraint, **odd}], [mount]) == [(0, "s", [], False)]
    assert left([{**constraint, "destination": ""}], [{**mount, "destination": ""}])
    assert left([constraint, None, {}], [None, {}, 5]) == [(n, None, [], False) for n in range(3)]
    assert left([constraint], None) == []


def test_what_a_source_may_still_be_is_said() -> None:
    mount = {"destination": "/d", "type": "bind", "options": [], "source": "/box/a"}
    sources = ["sandbox://sandbox://a?", "hugepages://b", "plan9://c", "plain", "sandbox://b.*"]
    constraints = [{**mount, "source": source} for source in sources]
    assert left(constraints, [mount]) == [(0, "/box/a", ["</box/boxa?>"], True)]
    assert left(constraints, [{**mount, "source": "/boxbread"}]) == []
    assert left(constraints, [{**mount, "source": "plan9://c"}]) == []
    assert left(constraints, [{**mount, "source": 5}]) == [(0, 5, [], True)]


TEXTS = st.text(st.sampled_from("ab.=/\n \u00e9-_"), max_size=5)


@given(text=TEXTS, rest=st.sampled_from(["", ".+", ".*"]), value=TEXTS)
def test_simple_patterns_match_what_the_engine_matches(text: str, rest: str, value: str) -> None:
    pattern = f"^{text}{rest}$"
    matches = matches_simply(pattern, value)
    if "." in text:
        assert matches is None or text.endswith((".+", ".*"))
        return
    engine = Engine({}, {})
    engine.add_module("t.rego", "package t\nx := regex.match(input.pattern, input.value)\n")
    for one in (value, text + value):
        engine.set_input(canonical({"pattern": translate(pattern), "value": one}))
        assert [matches_simply(pattern, one)] == engine.find("data.t.x")


@pytest.mark.parametrize(
    "pattern", ["a+", "^a|b$", "^(a)$", "^a\\.b$", "^[a]$", "^a{2}$", "^a.b.+$", "^.+.+$", "^a$$"]
)
def test_other_patterns_are_left_to_the_engine(pattern: str) -> None:
    assert matches_simply(pattern, "a") is None
