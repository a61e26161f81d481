"""Environment rules: how patterns end, what is required, what is dropped (policy.md 9.2, 1)."""

from __future__ import annotations

from typing import Any

import pytest
from policies import EXTERNAL, container, create, execute, policy, rule
from sessions import allow, deny, mounted, opened, started

SPLIT = {"name": "A", "name_strategy": "string", "value": "[0-9]+", "value_strategy": "re2"}


@pytest.mark.parametrize(
    ("rules", "fine", "strange"),
    [
        ([rule("A=1")], ["A=1"], ["A=12", "A=", "a=1", "A"]),
        ([rule("A=[0-9]+", "re2")], ["A=1", "A=12"], ["A=1x", "XA=1", "A=1\n"]),
        ([rule("^A=[0-9]+$", "re2")], ["A=12"], ["A=1x", "XA=1"]),
        ([rule("", "re2")], [""], ["A", "A=1"]),
        ([rule("(^A|^B)=.+$", "re2")], ["A=1", "B=1"], ["C=1", "A="]),
        # Quirks that decisions depend on: alternatives are not grouped, an escaped dollar is an end.
        ([rule("A=1|B=2", "re2")], ["A=1", "B=2", "A=1xyz", "zzB=2"], ["zA=1", "B=2z"]),
        ([rule("A=.*\\$", "re2")], ["A=$", "A=foo$bar"], ["B=$"]),
        ([rule("((?i)FABRIC)_.+=.+", "re2")], ["Fabric_X=1", "FABRIC_X=1"], ["Fabric=1"]),
        ([rule("A=\\d+", "re2")], ["A=1"], ["A=\u0661"]),
        ([rule("A=1", "glob")], [], ["A=1"]),
        ([rule("A=1", "any")], [], ["A=1"]),
        ([SPLIT], ["A=1", "A=12"], ["A", "B=1", "A=1=2"]),
        (
            [{**SPLIT, "name": "A|B", "name_strategy": "re2"}],
            ["A=1", "B=1"],
            ["C=1"],
        ),
        ([{**SPLIT, "value": "1=2", "value_strategy": "string"}], ["A=1=2"], ["A=1"]),
        ([{**SPLIT, "pattern": "B=1", "strategy": "string"}], ["A=1", "B=1"], ["B=2"]),
        ([{**SPLIT, "value_strategy": None}], [], ["A=1"]),
        ([], [], ["A=1", ""]),
    ],
)
def test_a_variable_needs_a_rule(rules: list[Any], fine: list[str], strange: list[str]) -> None:
    session = mounted(policy(container(env_rules=rules)))
    for env in strange:
        said = deny(session, "create_container", create(envList=[*fine, env]))
        assert f"invalid env list: {env.split('=')[0]}" in said
    allow(session, "create_container", create(envList=fine))


@pytest.mark.parametrize("required", [True, "false", 1, "yes"])
def test_whatever_is_not_false_makes_a_rule_required(required: object) -> None:
    needed = {**rule("A=1"), "required": required}
    session = mounted(policy(container(env_rules=[needed])))
    assert deny(session, "create_container", create(envList=[])) == ["missing required environment variable"]
    allow(session, "create_container", create(envList=["A=1"]))


def test_what_is_required_is_said_at_all_three_points() -> None:
    needed = [rule("A=1", required=True)]
    text = policy(container(env_rules=needed), external_processes=[{**EXTERNAL, "env_rules": needed}])
    session = started(text, envList=["A=1"])
    said = deny(session, "exec_in_container", execute(envList=[]))
    assert "missing required environment variable" in said
    outside = {"argList": ["ls"], "envList": [], "workingDir": "/"}
    assert deny(session, "exec_external", outside) == ["missing required environment variable"]
    allow(session, "exec_in_container", execute(envList=["A=1"]))
    allow(session, "exec_external", {**outside, "envList": ["A=1"]})


def test_dropping_keeps_what_is_known_at_all_three_points() -> None:
    text = policy(external_processes=[EXTERNAL], allow_environment_variable_dropping=True)
    session = started(text, envList=["PATH=/bin", "EVIL=1"])
    kept = allow(session, "exec_in_container", execute(envList=["EVIL=1", "PATH=/bin"]))
    assert kept["env_list"] == ["PATH=/bin"]
    outside = {"argList": ["ls"], "envList": ["A=1", "EVIL=1"], "workingDir": "/"}
    assert allow(session, "exec_external", outside)["env_list"] == ["A=1"]


def test_of_several_candidates_the_one_that_keeps_most_counts() -> None:
    fewer = container(env_rules=[rule("A=1")])
    more = container(env_rules=[rule("A=1"), rule("B=1")])
    session = mounted(policy(fewer, more, allow_environment_variable_dropping=True))
    kept = allow(session, "create_container", create(envList=["A=1", "B=1", "C=1"]))["env_list"]
    assert kept == ["A=1", "B=1"]


def test_the_fullest_set_may_lack_what_is_required_and_is_denied_all_the_same() -> None:
    modest = container(env_rules=[rule("A=1")])
    greedy = container(env_rules=[rule("A=1"), rule("B=1"), rule("C=1", required=True)])
    session = mounted(policy(modest, greedy, allow_environment_variable_dropping=True))
    said = deny(session, "create_container", create(envList=["A=1", "B=1"]))
    assert said == ["missing required environment variable"]
    allow(session, "create_container", create(envList=["A=1"]))


def test_an_exec_without_any_list_is_denied_and_nothing_is_said_of_it() -> None:
    said = deny(started(), "exec_in_container", execute(envList=None))
    assert not [one for one in said if "env" in one]
    allow(started(), "exec_in_container", execute(envList=[]))


def test_without_dropping_order_and_duplicates_stay() -> None:
    asked = ["TOKEN=2", "PATH=/bin", "TOKEN=2", "TOKEN=1"]
    assert allow(mounted(), "create_container", create(envList=asked))["env_list"] == asked


def test_names_are_said_in_the_order_of_the_request() -> None:
    said = deny(opened(policy(external_processes=[EXTERNAL])), "exec_external", {
        "argList": ["ls"], "envList": ["Z=1", "A=1", "B=2", "NOEQUALS"], "workingDir": "/",
    })  # fmt: skip
    assert said == ["invalid env list: Z,B,NOEQUALS"]
