"""Documents of both languages at once: refused, or their conditions hold (policy.md 1)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from confcom import policy as confcoms
from policies import container, device, overlay, policy
from sessions import allow, opened

from uvmd_policy_rego.documents import add_policy_module
from uvmd_policy_rego.engine import Engine, EngineError
from uvmd_policy_rego.session import Session
from uvmd_policy_rego.tools.check import check

OLD = "old { true }\n"
INPUT = {"y": 5, "xs": [1], "if": 1, "in": 2}


def value_of(text: str, name: str = "x") -> Any:
    """What a rule says, None if it is undefined."""
    engine = Engine({}, {})
    add_policy_module(engine, "policy.rego", f"package policy\n{text}\n")
    engine.set_input(json.dumps(INPUT))
    found = engine.find(f"data.policy.{name}")
    return found[0] if found else None


@pytest.mark.parametrize(
    "text",
    [
        "x := 1 if { input.y == 6 }",
        "x := 1 if input.y == 6",
        "x := 1 if false",
        "x := 1 if old",
        "x = 1 if { input.y == 6 }",
        "x if { input.y == 6 }",
        "x := 1 if { input.y == 6 } else := 2",
        "x := 1 { input.y == 6 } else := 2 if { input.y == 6 }",
        "default x := 1\nx := 2 if { input.y == 6 }",
        "x[k] := 1 if { k := input.xs[_] }",
        "x(a) := 1 if { a == 6 }",
        "x := 1 # if\nif { input.y == 6 }",
        'x := `"` if { input.y == 6 }',
        "x contains 1 if { input.y == 6 }",
        "x contains 1 { input.y == 6 }",
        "x contains 1",
        "x contains (1)",
        "x { some v in input.xs; v == 3 }",
        "x { some v in input.xs }",
        "x { every v in input.xs { v == 3 } }",
        "x { 7 in input.xs }",
        "x { not 1 in input.xs }",
        "x := [v | v in input.xs]",
        # What is imported is not what is used, or is nothing that OPA imports.
        "import future.keywords.in\nx := 1 if { input.y == 6 }",
        "import future.keywords.every\nx := 1 if { input.y == 6 }",
        "import future.keywords.if\nx contains 1 if { input.y == 6 }",
        "import future.keywords.contains\nx contains 1 if { input.y == 6 }",
        "import future.keywords.if as when\nx := 1 if { input.y == 6 }",
        "import future.words\nx := 1 if { input.y == 6 }",
        "# import future.keywords.if\nx := 1 if { input.y == 6 }",
        "x := `\nimport future.keywords.if\n` if { input.y == 6 }",
        "import rego.v1\nx := 1 if { input.y == 6 }",
        # The engine's v0 reads the input or data beside a rule of that name; OPA's the rule.
        "input := 3\nx { input == 3 }",
        "input := 3\nx { input.y == 5 }",
        "input { false }\nx { input.y == 5 }",
        'input[k] { k := "y" }\nx { input.y == 5 }',
        "input.y := 7 { true }\nx { input.y == 5 }",
        "default input = 3\nx { input.y == 5 }",
        "input(a) { a }\nx { input.y == 5 }",
        "data := 3\nx { data == 3 }",
        'import data.policy.z as input\nz := {"y": 7}\nx { input.y == 5 }',
    ],
)  # fmt: skip
def test_a_document_of_both_languages_is_refused(text: str) -> None:
    for mixed in (f"{text}\n{OLD}", f"{text}\r\n{OLD}"):
        with pytest.raises(EngineError):
            value_of(mixed)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x { input.y == 5 }", True),
        ("x { input.y == 6 }", None),
        ("x = 2 { input.y == 5 }", 2),
        ("default x := 1\nx := 2 { input.y == 6 }", 1),
        ("x := 1 { input.y == 6 } else := 2 { input.y == 5 }", 2),
        ("x = 1 { input.y == 6 } else = 2", 2),
        ("x[k] { k := input.xs[_] }", [1]),
        ('x { contains("ab", "a") }', True),
        ('x { contains("ab", "c") }', None),
        ("contains(a, b) { a == b }\nx { contains(1, 1) }", True),
        ("contains(a, b) = c { c := a }\nx = contains(4, 1)", 4),
        ('x = [input.if, input["in"], input.in]', [1, 2, 2]),
        ('x = "y if { contains every in }" # if', "y if { contains every in }"),
        ("iffy = 1\nx = iffy", 1),
        ("import input.y\nx { y == 5 }", True),
        ("import data.policy.z\nx { z }\nz { true }", True),
        ("x { y with input as {} }\ny { not input.y }", True),
        # Only a rule's name shadows: these are the engine's own as well.
        ("f(input) { input == 3 }\nx { f(3) }", True),
        ("x {\n\tinput := 3\n\tinput == 3\n}", True),
        ("x {\n\tinput.y == 5\n\tdata.policy.old\n}", True),
    ],
)
def test_a_document_of_the_older_language_means_what_it_meant(text: str, value: Any) -> None:
    assert value_of(f"{text}\n{OLD}") == value


EVERY = "x { every v in input.xs { v == %d } }"


@pytest.mark.parametrize(
    ("imports", "text", "value"),
    [
        ("if", "x := 1 if { input.y == 5 }", 1),
        ("if", "x := 1 if { input.y == 6 }", None),
        ("if", "x := 1 if input.y == 6", None),
        ("if", "default x := 1\nx := 2 if { input.y == 6 }", 1),
        ("if # of v1", "x := 1 if { input.y == 6 }", None),
        ("in", "x { some v in input.xs; v == 1 }", True),
        ("in", "x { some v in input.xs; v == 3 }", None),
        ("in", "x { not 1 in input.xs }", None),
        ("every", EVERY % 1, True),
        ("every", EVERY % 3, None),
        ("every in", EVERY % 3, None),
        ("contains", "x contains 1 { input.y == 5 }", [1]),
        ("contains", "x contains 1 { input.y == 6 }", []),
        ("contains if", "x contains 1 if { input.y == 6 }", []),
        ("", "x contains 1 if { input.y == 6 }", []),
        ("", EVERY % 3, None),
    ],
)
def test_an_imported_keyword_is_one_in_the_older_language(imports: str, text: str, value: Any) -> None:
    words = imports.split(" #")[0].split() or [""]
    lines = [f"import future.keywords{'.' if word else ''}{word}" for word in words]
    lines[-1] += imports[imports.index(" #") :] if "#" in imports else ""
    assert value_of("\n".join([*lines, text, OLD])) == value


def test_policies_of_older_tools_may_have_rules_of_the_older_kind() -> None:
    rule = 'get_properties := {"allowed": true} { every one in input.xs { one == 1 } }\n'
    text = confcoms(container()).replace("get_properties := data.framework.get_properties\n", rule)
    assert rule in text
    session = opened(text)
    allow(session, "get_properties", {"xs": [1]})
    assert not session.enforce("get_properties", {"xs": [2]}).allowed


CONDITION = """default mount_overlay := {"allowed": false}
mount_overlay := data.framework.mount_overlay if { not forbidden }
"""
FORBIDDEN = "forbidden { input.containerID }\n"


def conditional() -> str:
    text = policy().replace("mount_overlay := data.framework.mount_overlay\n", CONDITION + FORBIDDEN, 1)
    assert FORBIDDEN in text
    return text


def declared_if() -> str:
    text = policy()
    declared = f"containers := {json.dumps([container()])}"
    assert declared in text
    return text.replace(declared, declared + " if { count(debug) > 0 }") + "debug[x] { x := input.debug }\n"


@pytest.mark.parametrize("text", [conditional(), declared_if()])
def test_one_older_rule_does_not_drop_the_conditions_of_a_policy(text: str) -> None:
    with pytest.raises(EngineError, match="`if` keyword is required before rule body"):
        Session(text)
    assert {one.code for one in check(text)} == {"no-policy"}, "the tools say so as well"


@pytest.mark.parametrize(
    "text",
    [
        conditional().replace(FORBIDDEN, FORBIDDEN.replace(" {", " if {")),
        conditional().replace("package policy\n", "package policy\nimport future.keywords.if\n"),
        declared_if().replace("debug[x] {", "debug contains x if {"),
        declared_if().replace("package policy\n", "package policy\nimport future.keywords.if\n"),
    ],
)
def test_where_the_condition_is_read_the_overlay_is_denied(text: str) -> None:
    session = opened(text)
    for number, layer in enumerate(("base", "top")):
        session.enforce("mount_device", device(layer, number))
    assert not session.enforce("mount_overlay", overlay(1, 0)).allowed
