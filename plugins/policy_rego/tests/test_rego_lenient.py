"""A builtin that is given a wrong type is undefined, and the policy goes on, as in the reference."""

from __future__ import annotations

import pytest

from uvmd_policy_rego.lenient import directed
from uvmd_policy_rego.session import Session

POLICY = """package policy
api_version := "0.12.0"
default allowed := false
allowed if {{
	{condition}
}}
allowed if input.anyway
get_properties := {{"allowed": allowed}}
dump_stacks := {{"allowed": wrong}}
default wrong := true
wrong := false if {{
	{condition}
}}
"""
UNDEFINED = [
    "count(input.null)", "count(1) >= 0", 'startswith(1, "a")', 'endswith("a", input.null)',
    'contains(input.null, "a")', 'indexof(input.null, "a") == 0', "substring(input.null, 0, 1)",
    "lower(input.null)", "upper(1)", 'trim(1, "a")', 'trim_prefix(1, "a")', "trim_space([])",
    'replace(1, "a", "b")', 'split(input.null, ",")', 'concat(",", [1])', 'concat(",", input.null)',
    'sprintf("%d", input.null)', 'to_number("abc")', "to_number([]) >= 0", "sum(input.null)",
    'sum(["a"])', "max(input.null)", "sort(input.null)", "array.concat(input.null, [])",
    'array.slice(input.null, 0, 1)', 'object.get(input.null, "a", 1)', "object.keys(input.null)",
    "object.union(input.null, {})", "object.remove(input.null, [])", 'regex.match("(", "a")',
    'regex.match("a", input.null)', 'regex.match(input.null, "a")', 'regex.match("(?=a)", "a")',
    'regex.split("(", "a")', 'semver.compare(input.null, "1.0.0") == 0',
    'semver.compare("x", "1.0.0") == 0', 'json.unmarshal("{")', "json.unmarshal(1)",
    'base64.decode("%%")', "base64.decode(1)", "semver.is_valid(1)", "crypto.sha256(1)",
    'x := input.null + 1; x', '1 + "a"', '"a" + 1', '`a` * "b" + "c"', "1 - {1}", "{1} - [1]", '"a" - "b"',
    "(input.null | {1}) == {1}", "{1} & 1", "1 / 0", "1 % 0", "1.5 % 2", "{1 + input.null} == {1}",
    "[1, 2][input.null - 1] == 1", "(1 # + 2\n+ # * 3\ninput.null) == 1", "union([1])",
    'sprintf("%d", [])', 'sprintf("", [1])', "intersection({1})",
]  # fmt: skip
DEFINED = [
    "count([1]) == 1", 'count("abc") == 3', 'startswith("ab", "a")', 'endswith("ab", "b")',
    'contains("abc", "b")', 'indexof("ab", "b") == 1', 'substring("abc", 1, -1) == "bc"',
    'lower("A") == "a"', 'upper("a") == "A"', 'trim("xax", "x") == "a"', 'trim_space(" a ") == "a"',
    'trim_left("xa", "x") == "a"', 'trim_right("ax", "x") == "a"', 'trim_prefix("xa", "x") == "a"',
    'trim_suffix("ax", "x") == "a"', 'replace("aa", "a", "b") == "bb"', 'split("a,b", ",") == ["a", "b"]',
    'concat(",", ["a", "b"]) == "a,b"', 'concat(",", {"a"}) == "a"', 'sprintf("%s", ["a"]) == "a"',
    'to_number("1.5") == 1.5', "sum([1, 2]) == 3", "product([2, 2]) == 4", "max([1, 2]) == 2",
    "min({1, 2}) == 1", "sort([2, 1]) == [1, 2]", "abs(-1) == 1", "array.concat([1], [2]) == [1, 2]",
    "array.slice([1, 2], 1, 2) == [2]", 'object.get({"a": 1}, "a", 2) == 1',
    'object.keys({"a": 1}) == {"a"}', 'object.union({"a": 1}, {}) == {"a": 1}',
    'object.remove({"a": 1}, ["a"]) == {}', 'regex.match("^a.c$", "abc")',
    'regex.split(",", "a,b") == ["a", "b"]', 'regex.find_n("a", "aa", 1) == ["a"]',
    'semver.compare("v1.0.0", "0.9.0") == 1', 'semver.is_valid("1.0.0")',
    'json.unmarshal("[1]") == [1]', 'base64.decode("YQ==") == "a"',
    "1 + 2 * 3 - 4 / 2 == 5", "(1 + 2) * (3 - 1) == 6", "((7) % (4)) == 3", "1 - -1 == 2", "5 -3 == 2",
    "({1} | {2}) & {2} == {2}", "{1, 2} - {2} == {1}", "4.0 % 3 == 1", '{"é", "a"} - {"é"} == {"a"}',
    "[1, 2, 3][1 + 1] == 3", "[q | q := [1, 2][_] + 1] == [2, 3]", '"a + b" == `a + b`',
    "1 + 1 in {2}", "every x in {1} | {2} { x + 1 > 1 }", "(1 # - 1\n+ # * 2\n2) == 3",
    "union({{1}, {2}}) == {1, 2}", 'sprintf("%d", [1 + 1]) == "2"',
    """count(sprintf("%v", [{{"a": 1}}])) > 3""",
]  # fmt: skip


@pytest.mark.parametrize("condition", UNDEFINED)
def test_what_a_builtin_cannot_take_is_undefined_and_no_error(condition: str) -> None:
    session = Session(POLICY.format(condition=condition))
    answer = session.enforce("get_properties", {"null": None, "anyway": True})
    assert answer.allowed, answer.decision
    denied = session.enforce("get_properties", {"null": None})
    assert "policyError" not in denied.decision
    assert session.enforce("dump_stacks", {"null": None}).allowed
    session.close()


@pytest.mark.parametrize("condition", DEFINED)
def test_what_a_builtin_can_take_is_what_it_was(condition: str) -> None:
    session = Session(POLICY.format(condition=condition))
    answer = session.enforce("get_properties", {})
    assert answer.allowed, answer.decision
    session.close()


WRITTEN = [
    'a if startswith(input.x[_], "a")',
    "a if { count(input.x, n); n == 2 }",
    'a if { split("a,b", ",", [p, q]); p == "a" }',
    'a if { [p, q] := split("a,b", ","); p == "a" }',
    'a if { [p, q] = split("a,b", ","); q == "b" }',
    'a if split("a,b", ",")[1] == "b"',
    "a if count(input.x) == 3 with input.x as [1, 2, 3]",
    'a if not startswith(input.x[0], "a")',
    'a if { every v in input.x { startswith(v, "") } }',
    'a if { l := [lower(v) | v := input.x[_]]; l == ["b", "a"] }',
    'a if { some v in split("x,a", ","); v == "a" }',
    "f(x) := y if { y := sum([z | z := x[_]]) }\na if f([1, 2]) == 3",
    "b := count(input.x)\na if b == 2",
    'a := true if count(input.none) == 3\nelse := startswith("ab", "a")',
    "a if {\ncount(input.x) == 2\n}",
]


@pytest.mark.parametrize("rules", WRITTEN)
def test_calls_stand_wherever_they_may_stand(rules: str) -> None:
    default = "" if rules.startswith("a :=") else "default a := false\n"
    text = f'package policy\napi_version := "0.12.0"\n{default}{rules}\nget_properties := {{"allowed": a}}\n'
    session = Session(text)
    answer = session.enforce("get_properties", {"x": ["b", "a"]})
    assert answer.allowed, answer.decision
    session.close()


def test_operators_of_old_rego_are_found_too() -> None:
    session = Session(
        'package policy\napi_version = "0.12.0"\nf(x) = y { y := x + 1 }\nb { f(1) == 2; not 1 + "a" }\n'
        'get_properties = {"allowed": b}\n'
    )
    assert session.enforce("get_properties", {}).allowed
    session.close()


def test_operators_too_deep_to_be_looked_at_are_the_engine_s() -> None:
    chain = " + ".join(["1"] * 400)
    text = f'package policy\napi_version := "0.12.0"\nget_properties := {{"allowed": {chain} == 400}}\n'
    session = Session(text)
    assert session.enforce("get_properties", {}).allowed
    session.close()


@pytest.mark.parametrize(("long", "allowed"), [(False, True), (True, False)])
def test_an_operator_s_wrong_type_in_a_long_text_denies(long: bool, allowed: bool) -> None:
    words = "\n".join(f'word_{number} := "{"x" * 90}"' for number in range(700 if long else 7))
    session = Session(
        f'package policy\napi_version := "0.12.0"\n{words}\nbad if {{ x := 1 + input.x; x }}\n'
        'get_properties := {"allowed": true} if not bad\n'
    )
    decision = session.enforce("get_properties", {"x": "a"})
    assert decision.allowed is allowed
    assert session.enforce("get_properties", {"x": -1}).allowed is False
    session.close()


@pytest.mark.parametrize("call", ['sprintf("%d", [])', 'io.jwt.decode("a")'])
def test_what_the_engine_has_otherwise_or_not_at_all_allows_nothing(call: str) -> None:
    session = Session(
        f'package policy\napi_version := "0.12.0"\nwrong if {{ x := {call}; x }}\n'
        'get_properties := {"allowed": true} if wrong\n'
    )
    assert not session.enforce("get_properties", {}).allowed
    session.close()


def test_texts_comments_and_own_functions_are_left_alone() -> None:
    text = 'package x\n# count(1)\na := "count(1)"\nb := `lower(1)`\nc := data.z.count(1)\nd := my_count(2)\n'
    assert directed(text) == text
    own = "package x\ncount(a) := 1\nx := count([1]) + max([1])\n"
    assert directed(own) == own.replace("max(", "data.uvmd.lenient.max_(")
    assert directed("deny contains x if lower(x)") == "deny contains x if data.uvmd.lenient.lower_(x)"


def test_a_wrong_pattern_in_one_rule_does_not_end_the_others() -> None:
    session = Session(
        'package policy\napi_version := "0.12.0"\nbad if regex.match("(", input.x)\n'
        'get_properties := {"allowed": true} if not bad\n'
    )
    assert session.enforce("get_properties", {"x": "a"}).allowed
    session.close()
