"""Fragments of fragments, their parameters and what they may not touch (policy.md 11)."""

from __future__ import annotations

import json
from typing import Any

import policies
import pytest
from policies import container, create, policy
from sessions import allow, deny, errors, opened
from test_rego_fragments import IMPORT, fragment, importing, load

from uvmd_policy_rego.session import Session

NESTED = {"issuer": "did:y", "feed": "g", "minimum_svn": "1", "includes": ["containers"]}
EXTRA = container(layers=["extra"])


def runs(session: Session, layer: str = "extra", **changes: Any) -> bool:
    """Whether a container of this one layer can be created; nothing of the trial is kept."""
    before = session.documents.store.snapshot()
    try:
        return (
            session.enforce("mount_device", policies.device(layer, 7)).allowed
            and session.enforce("mount_overlay", policies.overlay(7)).allowed
            and session.enforce("create_container", create(**changes)).allowed
        )
    finally:
        session.documents.store.restore(before)


@pytest.mark.parametrize("included", [True, False])
def test_a_fragments_own_imports_count_where_it_was_let_in_with_them(included: bool) -> None:
    session = importing({**IMPORT, "includes": ["fragments"] if included else ["containers"]})
    assert load(session, fragment(fragments=[NESTED])).allowed
    answer = load(session, fragment(containers=[EXTRA]), issuer="did:y", feed="g")
    if included:
        assert answer.allowed
        assert runs(session)
    else:
        assert errors(answer) == ["invalid fragment issuer"]
        assert not runs(session)


def test_a_nested_fragment_below_its_own_minimum_is_refused() -> None:
    session = importing({**IMPORT, "includes": ["fragments"]})
    assert load(session, fragment(fragments=[{**NESTED, "minimum_svn": "9"}])).allowed
    answer = load(session, fragment('"8"', containers=[EXTRA]), issuer="did:y", feed="g")
    assert errors(answer) == ["fragment svn is below the specified minimum"]
    assert load(session, fragment('"9"', containers=[EXTRA]), issuer="did:y", feed="g").allowed


def test_zero_is_a_version_and_a_header_never_reaches_a_semantic_minimum() -> None:
    session = importing({**IMPORT, "minimum_svn": "0"})
    assert load(session, fragment("0")).allowed
    assert load(session, fragment(None), 0).allowed
    session = importing({**IMPORT, "minimum_svn": "0.1.0"})
    assert errors(load(session, fragment(None), 5)) == []
    assert load(session, fragment('"0.1.0"')).allowed


def test_two_feeds_of_an_issuer_and_one_feed_twice_add_up() -> None:
    session = importing(IMPORT, {**IMPORT, "feed": "g"})
    assert load(session, fragment(containers=[EXTRA])).allowed
    assert load(session, fragment(containers=[container(layers=["second"])]), feed="g").allowed
    assert load(session, fragment(containers=[container(layers=["third"])])).allowed
    assert [runs(session, layer) for layer in ("extra", "second", "third")] == [True, True, True]


def test_a_loaded_fragments_module_is_gone_unless_its_namespace_was_asked_for() -> None:
    more = "own_rule := true\n"
    text = 'package policy\napi_version := "0.12.0"\nframework_version := "0.5.0"\n'
    text += "load_fragment := data.framework.load_fragment\nreason := data.framework.reason\n"
    text += 'get_properties := {"allowed": true} if data.extra.own_rule\n'
    for includes, there in ((["containers"], False), (["containers", "namespace"], True)):
        imported = {**IMPORT, "includes": includes}
        session = Session(text + f"fragments := {json.dumps([imported])}\n")
        assert load(session, fragment(more=more)).allowed
        assert session.enforce("get_properties", {}).allowed is there


def test_a_fragment_without_its_namespace_takes_the_kept_one_away() -> None:
    text = policy(fragments=[{**IMPORT, "includes": ["namespace"]}])
    session = opened(text)
    assert load(session, fragment(more="a := 1\n")).allowed
    assert session.documents.find("data.extra.a") == [1]
    assert load(session, fragment(more="b := 1\n")).allowed
    assert session.documents.find("data.extra.a") == []
    assert session.documents.find("data.extra.b") == [1]


@pytest.mark.parametrize(
    "name", ["framework", "api", "policy", "metadata", "defaultMounts", "privilegedMounts", "sandboxPrefix"]
)
def test_a_fragment_cannot_be_what_decides(name: str) -> None:
    session = importing({**IMPORT, "includes": ["namespace"]})
    text = fragment(more='mount_device := {"allowed": true}\n').replace("package extra", f"package {name}")
    with pytest.raises(Exception, match=f'namespace "{name}" is reserved'):
        load(session, text)
    assert deny(session, "mount_device", policies.device("other", 1)) == ["deviceHash not found"]


def test_a_kept_namespace_may_write_metadata_through_the_policy() -> None:
    text = 'package policy\napi_version := "0.12.0"\nframework_version := "0.5.0"\n'
    text += f"fragments := {json.dumps([{**IMPORT, 'includes': ['namespace']}])}\n"
    text += "load_fragment := data.framework.load_fragment\nreason := data.framework.reason\n"
    text += "dump_stacks := data.extra.dump_stacks\n"
    text += 'get_properties := {"allowed": true} if data.metadata.n.k == 1\n'
    session = Session(text)
    operation = '[{"name": "n", "action": "add", "key": "k", "value": 1}]'
    more = f'dump_stacks := {{"allowed": true, "metadata": {operation}}}\n'
    assert load(session, fragment(more=more)).allowed
    assert not session.enforce("get_properties", {}).allowed
    allow(session, "dump_stacks", {})
    allow(session, "get_properties", {})


# Parameters


def parametrised(call: str, **defaults: Any) -> str:
    described = json.dumps(container(layers=["extra"])).replace('["web", "--port", "80"]', call)
    api = {name: {"default": value} for name, value in defaults.items()}
    return fragment(more=f"parameters_api := {json.dumps(api)}\ncontainers := [{described}]\n")


@pytest.mark.parametrize(
    ("parameters", "command"),
    [
        ({"arg": "x"}, ["run", "x"]),
        ({"arg": ""}, ["run", ""]),
        ({"arg": '"]}; evil := {"'}, ["run", '"]}; evil := {"']),
        ({"arg": "<&> \u2028 é"}, ["run", "<&> \u2028 é"]),
        ({"arg": 'x", parameter("y")'}, ["run", 'x", parameter("y")']),
        ({}, ["run", "fallback"]),
        ({"arg": "x", "undeclared": "y"}, ["run", "x"]),
    ],
)
def test_a_parameter_is_a_value_and_never_text_of_the_policy(
    parameters: dict[str, Any], command: list[str]
) -> None:
    text = parametrised('["run", parameter("arg")]', arg="fallback")
    # A 0.5.0 policy gives nothing for an import without parameters: one without any has its defaults.
    session = importing({**IMPORT, **({"parameters": parameters} if parameters else {})})
    assert load(session, text).allowed
    assert runs(session, argList=command)
    assert not runs(session, argList=["run", "other"])


def test_a_parameter_may_be_a_whole_command() -> None:
    session = importing({**IMPORT, "parameters": {"all": ["sh", "-c", "x"]}})
    assert load(session, parametrised('parameter("all")')).allowed
    assert runs(session, argList=["sh", "-c", "x"])


def test_a_parameter_that_nobody_gives_makes_the_list_empty() -> None:
    session = importing({**IMPORT, "parameters": {"other": 1}})
    assert load(session, parametrised('["run", parameter("arg")]')).allowed
    assert not runs(session, argList=["run"])


def test_combinations_of_parameters_do_not_mix() -> None:
    text = parametrised('["run", parameter("a"), parameter("b")]')
    one, two = {"a": "1", "b": "2"}, {"a": "3", "b": "4"}
    session = importing({**IMPORT, "parameters": one}, {**IMPORT, "parameters": two})
    assert load(session, text).allowed
    assert runs(session, argList=["run", "1", "2"])
    assert runs(session, argList=["run", "3", "4"])
    assert not runs(session, argList=["run", "1", "4"])


def test_a_fragment_passes_parameters_down() -> None:
    passing = fragment(
        more='fragments := [{"issuer": "did:y", "feed": "g", "minimum_svn": "1", "includes": ["containers"], '
        '"parameters": {"arg": parameter("arg")}}]\n'
    )
    session = importing({**IMPORT, "includes": ["fragments"], "parameters": {"arg": "deep"}})
    assert load(session, passing).allowed
    text = parametrised('["run", parameter("arg")]')
    assert load(session, text, issuer="did:y", feed="g").allowed
    assert runs(session, argList=["run", "deep"])
    assert not runs(session, argList=["run", "x"])


def test_a_namespace_and_several_combinations_exclude_each_other() -> None:
    both = {**IMPORT, "includes": ["namespace"]}
    session = importing({**both, "parameters": {"a": 1}}, {**both, "parameters": {"a": 2}})
    with pytest.raises(Exception, match="if multiple possible parameter combinations are defined"):
        load(session, fragment())


def test_two_imports_that_include_different_things_are_in_conflict() -> None:
    session = importing(IMPORT, {**IMPORT, "includes": ["containers"]})
    answer = load(session, fragment())
    assert not answer.allowed
    assert "eval_conflict_error" in answer.decision["policyError"]


# Platform rules

RULE = {"env_rules": [policies.rule("FABRIC=1")], "mounts": []}


@pytest.mark.parametrize("of_fragment", [True, False])
@pytest.mark.parametrize("in_fragment", [True, False])
def test_platform_rules_and_containers_meet_wherever_they_come_from(
    of_fragment: bool, in_fragment: bool
) -> None:
    rules = {"platform_rules": [RULE]}
    imported = {**IMPORT, "includes": ["containers", "platform_rules"]}
    containers = [] if in_fragment else [EXTRA]
    text = policy(fragments=[imported], **({} if of_fragment else rules))
    text = text.replace(json.dumps([container()]), json.dumps(containers))
    session = opened(text)
    lists: dict[str, Any] = {"containers": [EXTRA]} if in_fragment else {}
    assert load(session, fragment(**lists, **(rules if of_fragment else {}))).allowed
    assert runs(session, envList=["FABRIC=1"])
    assert not runs(session, envList=["FABRIC=2"])


@pytest.mark.parametrize(
    ("includes", "framework"), [(["containers"], "0.5.0"), (["platform_rules"], "0.4.1")]
)
def test_platform_rules_need_their_include_and_their_version(includes: list[str], framework: str) -> None:
    session = opened(policy(EXTRA, fragments=[{**IMPORT, "includes": includes}]))
    assert load(session, fragment(framework=framework, platform_rules=[RULE])).allowed
    assert not runs(session, envList=["FABRIC=1"])
    assert runs(session)


# Reasons


def test_a_policy_gives_reasons_of_its_own_or_none() -> None:
    head = 'package policy\napi_version := "0.12.0"\nget_properties := {"allowed": false}\n'
    own = opened(head + 'reason := {"why": "closed on Sundays"}\n').enforce("get_properties", {})
    assert own.decision["reason"] == {"why": "closed on Sundays"}
    none = opened(head).enforce("get_properties", {})
    assert none.decision["reason"].startswith("Security policy is either not valid or did not provide")


def test_an_old_policy_loads_fragments_too() -> None:
    old = container(layers=["extra"])
    session = opened(policy(api="0.10.0", framework="0.2.3", fragments=[IMPORT]))
    assert load(session, fragment(framework="0.2.3", containers=[old])).allowed
    assert runs(session)
    assert errors(load(session, fragment(), feed="z")) == ["invalid fragment feed"]


def test_receipts_are_asked_for_before_the_text_is_looked_at() -> None:
    session = importing({**IMPORT, "required_receipts": ["ledger", "TTL:s"]})
    said = errors(
        load(session, "package extra\nno { rego", receipts=[{"issuer": "ledger", "ttl_subjects": None}])
    )
    assert said == ["missing receipt from TTL:s"]
    both = [{"issuer": "ledger", "ttl_subjects": ["s"]}]
    assert load(session, fragment(containers=[EXTRA]), receipts=both).allowed
    assert runs(session)
