"""Fragments, their parameters and receipts, and the lists of keys behind them."""

from __future__ import annotations

import json
from typing import Any

import policies
import pytest
from policies import EXTERNAL, container, create, policy
from sessions import allow, deny, errors, mounted, opened

from uvmd.api import Fragment, TrustList
from uvmd_policy_rego.fragments import Ledgers, load_fragment, load_trust_list, namespace_of
from uvmd_policy_rego.session import Answer, Refusal, Session

IMPORT = {
    "issuer": "did:x",
    "feed": "f",
    "minimum_svn": "2",
    "includes": ["containers", "external_processes"],
}


def fragment(svn: str | None = '"2"', framework: str = "0.5.0", more: str = "", **lists: Any) -> str:
    text = f'package extra\nframework_version := "{framework}"\n'
    if svn is not None:
        text += f"svn := {svn}\n"
    return text + "".join(f"{name} := {json.dumps(value)}\n" for name, value in lists.items()) + more


def load(session: Session, code: str, header: int | None = None, **changes: Any) -> Answer:
    receipts = changes.pop("receipts", [])
    names = {"issuer": "did:x", "feed": "f"} | changes
    return load_fragment(session, Fragment(names["issuer"], names["feed"], code, header, receipts))


def importing(*imports: Any, **more: Any) -> Session:
    return opened(policy(fragments=list(imports or (IMPORT,)), **more))


def test_a_fragment_adds_its_containers_and_processes() -> None:
    added = container(layers=["extra"])
    session = importing()
    assert deny(session, "mount_device", policies.device("extra", 5)) == ["deviceHash not found"]
    assert load(session, fragment(containers=[added], external_processes=[EXTERNAL])).allowed
    allow(session, "mount_device", policies.device("extra", 5))
    allow(session, "mount_overlay", policies.overlay(5))
    allow(session, "create_container", create())
    allow(session, "exec_external", {"argList": ["ls"], "envList": ["A=1"], "workingDir": "/"})


def test_what_the_import_does_not_include_is_not_added() -> None:
    session = importing({**IMPORT, "includes": ["external_processes"]})
    assert load(session, fragment(containers=[container(layers=["extra"])])).allowed
    deny(session, "mount_device", policies.device("extra", 5))


def test_a_rolled_back_fragment_is_gone() -> None:
    session = importing()
    before = session.documents.store.snapshot()
    assert load(session, fragment(containers=[container(layers=["extra"])])).allowed
    session.documents.store.restore(before)
    deny(session, "mount_device", policies.device("extra", 5))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"issuer": "did:y"}, "invalid fragment issuer"), ({"feed": "g"}, "invalid fragment feed")],
)
def test_text_of_a_stranger_is_not_even_parsed(changes: dict[str, str], reason: str) -> None:
    assert errors(load(importing(), "package extra\nthis is { no rego", **changes)) == [reason]


def test_text_that_does_not_compile_is_refused_with_the_engines_words() -> None:
    answer = load(importing(), "package extra\nthis is { no rego")
    assert not answer.allowed
    assert "error when compiling modules" in answer.decision["policyError"]


@pytest.mark.parametrize(
    ("svn", "header", "minimum", "reasons"),
    [
        ('"2"', None, "2", None),
        ("3", None, 2, None),
        ('"1.2.0"', None, "1.1.9", None),
        (None, 2, "2", None),
        ("2", 2, "2", None),
        ("1", None, "2", ["fragment svn is below the specified minimum"]),
        ('"1.0.0"', None, "2", ["fragment svn and the specified minimum are different types"]),
        ("2", None, "1.0.0", ["fragment svn and the specified minimum are different types"]),
        ("3", 4, "2", ["svn in header 4 does not match svn in fragment rego 3"]),
        (None, 1, "2", []),
        (
            None,
            None,
            "2",
            [
                "fragment svn is below the specified minimum",
                "missing fragment svn in either header or rego payload",
            ],
        ),
    ],
)
def test_the_version_of_a_fragment(svn: Any, header: Any, minimum: Any, reasons: list[str] | None) -> None:
    answer = load(importing({**IMPORT, "minimum_svn": minimum}), fragment(svn), header)
    assert answer.allowed is (reasons is None)
    if reasons is not None:
        assert errors(answer) == reasons


def test_a_fragment_from_the_future_or_of_no_version_is_refused() -> None:
    said = errors(load(importing(), fragment(framework="9.0.0")))
    assert said == ["fragment framework_version is ahead of the current version: 9.0.0 is greater than 0.5.0"]
    said = errors(load(importing(), 'package extra\nsvn := "2"\n'))
    assert said == ["fragment framework_version is missing. Current version: 0.5.0"]


@pytest.mark.parametrize(
    "line",
    [
        "",
        " package a",
        "package a.b",
        "package",
        "package a # x",
        "package\ta",
        "package framework",
        "package api",
        "package defaultMounts",
        "package é",
    ],
)
def test_first_lines_that_name_no_namespace(line: str) -> None:
    with pytest.raises(Refusal, match="unable to load fragment: "):
        namespace_of(f"{line}\nsvn := 1")


def test_names_are_told_apart_by_case_and_line_ends_do_not_matter() -> None:
    assert namespace_of("package  Framework \r\nsvn := 1") == "Framework"


def test_each_combination_of_parameters_is_a_load_of_its_own() -> None:
    text = fragment(more='parameters_api := {"port": {"default": "80"}}\n')
    made = json.dumps(container(command=["serve", "PORT"], layers=["extra"]))
    made = made.replace('"PORT"', 'parameter("port")')
    text += f"containers := [{made}]\n"
    session = importing(
        {**IMPORT, "parameters": {"port": "1"}}, {**IMPORT, "parameters": {"port": '"; evil'}}
    )
    assert load(session, text).allowed
    for port, fine in (("1", True), ('"; evil', True), ("80", False)):
        before = session.documents.store.snapshot()
        allow(session, "mount_device", policies.device("extra", 5))
        allow(session, "mount_overlay", policies.overlay(5))
        answer = session.enforce("create_container", create(argList=["serve", port]))
        assert answer.allowed is fine, port
        session.documents.store.restore(before)


def test_a_namespace_that_is_included_can_be_used_by_the_policy() -> None:
    text = 'package policy\napi_version := "0.12.0"\nframework_version := "0.5.0"\n'
    text += f"fragments := {json.dumps([{**IMPORT, 'includes': ['namespace']}])}\n"
    text += "load_fragment := data.framework.load_fragment\nreason := data.framework.reason\n"
    text += "get_properties := data.extra.get_properties\n"
    session = Session(text)
    assert not session.enforce("get_properties", {}).allowed
    assert load(session, fragment(more='get_properties := {"allowed": true}\n')).allowed
    assert session.enforce("get_properties", {}).allowed


@pytest.mark.parametrize(
    ("required", "fine"),
    [(["*"], True), (["ledger"], True), (["TTL:s"], True), (["*", "other"], False), (["TTL:t"], False)],
)
def test_receipts_that_an_import_requires(required: list[str], fine: bool) -> None:
    session = importing({**IMPORT, "required_receipts": required})
    said = errors(load(session, fragment()))
    assert said == [f"missing receipt from {one}" for one in sorted(required)]
    receipts = [{"issuer": "ledger", "ttl_subjects": ["s"]}]
    assert load(session, fragment(), receipts=receipts).allowed is fine


@pytest.mark.parametrize("required", ["TTL:s", "*x", "TTL:"])
def test_a_ledger_that_is_named_like_a_requirement_does_not_meet_it(required: str) -> None:
    session = importing({**IMPORT, "required_receipts": [required]})
    receipts = [{"issuer": required, "ttl_subjects": ["other"]}]
    assert load(session, fragment(), receipts=receipts).allowed is not required.startswith("TTL:")
    odd = importing({**IMPORT, "required_receipts": [7, None]})
    assert not load(odd, fragment(), receipts=[{"issuer": 7}, {"issuer": None}]).allowed


def test_platform_rules_make_variants_of_every_container() -> None:
    rules = [{"env_rules": [policies.rule("FABRIC=.*", "re2")]}, {"env_rules": [policies.rule("B=1")]}]
    session = mounted(policy(platform_rules=rules))
    allow(session, "create_container", create(envList=["PATH=/bin", "FABRIC=x"]))
    session = mounted(policy(platform_rules=rules))
    deny(session, "create_container", create(envList=["FABRIC=x", "B=1"]))


def test_keys_of_ledgers_are_taken_as_far_as_the_policy_names_them() -> None:
    trust = {"issuer": "did:x", "subject": "s", "minimum_svn": 2, "allowed_ledgers": ["one"]}
    session, ledgers = opened(policy(transparency_trust_lists=[trust])), Ledgers()
    keys = {"one": {"k": "AA=="}, "two": {"k": "BB=="}}
    low = load_trust_list(session, ledgers, TrustList("did:x", "s", 1, keys))
    assert errors(low) == ["no TTL candidate matches the provided TTL's issuer, subject and svn"]
    none = load_trust_list(session, ledgers, TrustList("did:x", "s", 2, {"two": {}}))
    assert errors(none) == ["The provided TTL does not contain any ledgers it is allowed to load"]
    assert ledgers.keys == {}
    assert load_trust_list(session, ledgers, TrustList("did:x", "s", 2, keys)).allowed
    assert ledgers.keys == {"one": {"k": ("AA==", ("s",))}}
    ledgers.merge("t", {"one": {"k": "AA=="}})
    assert ledgers.keys == {"one": {"k": ("AA==", ("s", "t"))}}
    ledgers.merge("u", {"one": {"k": "CC=="}})
    assert ledgers.keys == {"one": {"k": ("CC==", ("u",))}}


def test_a_star_lets_every_ledger_in() -> None:
    trust = {"issuer": "did:x", "subject": "s", "minimum_svn": 1, "allowed_ledgers": ["*"]}
    session, ledgers = opened(policy(transparency_trust_lists=[trust])), Ledgers()
    assert load_trust_list(session, ledgers, TrustList("did:x", "s", 1, {"a": {}, "b": {}})).allowed
    assert set(ledgers.keys) == {"a", "b"}
