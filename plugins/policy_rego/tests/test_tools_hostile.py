"""Whatever a policy declares, the tools say something of it: they are shown strangers' texts."""

from __future__ import annotations

import json
from typing import Any

import policies
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uvmd_policy_rego.tools.check import check
from uvmd_policy_rego.tools.compare import as_text as compared_text
from uvmd_policy_rego.tools.compare import compare
from uvmd_policy_rego.tools.explain import as_json, as_text, explain
from uvmd_policy_rego.tools.literals import NotLiteral, parse_literal
from uvmd_policy_rego.tools.page import page
from uvmd_policy_rego.tools.pattern_words import matches, remarks_on, remarks_on_env, sample
from uvmd_policy_rego.tools.reading import NotRego, read_document

scalars = st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=6) | st.just("sandbox:///a/.+")
KEYS = (
    "command env_rules layers mounts exec_processes signals user capabilities seccomp_profile_sha256 "
    "allow_elevated working_dir allow_stdio_access no_new_privileges name id pattern strategy required "
    "name_strategy value value_strategy source destination type options user_idname group_idnames umask "
    "bounding ambient issuer feed minimum_svn includes required_receipts parameters subject allowed_ledgers"
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS.split()), inner, max_size=4)
    ),
    max_leaves=12,
)


def broken(plain: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object of which one part, at any depth, is something else."""
    return st.tuples(st.sampled_from(sorted(plain)), values).map(lambda one: plain | {one[0]: one[1]})


containers = broken(policies.container()) | values
IMPORT = {"issuer": "i", "feed": "f", "minimum_svn": "1", "includes": ["containers"]}
lists = st.fixed_dictionaries(
    {"containers": st.lists(containers, max_size=3) | values},
    optional={
        "external_processes": st.lists(broken(policies.EXTERNAL) | values, max_size=2) | values,
        "fragments": st.lists(broken(IMPORT) | values, max_size=2) | values,
        "platform_rules": values,
        "transparency_trust_lists": values,
        "allow_dump_stacks": values,
        "allow_capability_dropping": values,
    },
)
versions = st.sampled_from(["0.5.0", "0.2.0", "0.4.1", "0.9.0", "x", ""])
quick = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def text_of(declared: dict[str, Any], framework: str) -> str:
    lines = ["package policy", 'api_version := "0.11.0"', f"framework_version := {json.dumps(framework)}"]
    lines += [f"{name} := {json.dumps(value)}" for name, value in declared.items()]
    return "\n".join(lines) + "\n" + policies.ALIASES + policies.REASON


@settings(quick, max_examples=25)
@given(declared=lists, framework=versions)
def test_no_policy_is_too_odd_to_be_told(declared: dict[str, Any], framework: str) -> None:
    text = text_of(declared, framework)
    assert all(one.sentence("p") for one in check(text))
    try:
        found = explain(read_document(text))
    except NotRego:
        return  # what the engine cannot hold as data; `check` has said so
    assert as_text(found)
    assert page(found, "p").startswith("<!doctype html>")
    json.dumps(as_json(found))
    comparison = compare(read_document(text), read_document(policies.policy()))
    assert compared_text(comparison)
    assert compare(read_document(text), read_document(text)).changes == []


@quick
@given(st.text(alphabet='package policy\n:={}[]"`#,x1.|()', max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    check(text)
    check("package policy\n" + text)


@quick
@given(st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner)))
def test_literals_are_read_as_json_reads_them(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, indent=1, ensure_ascii=False)):
        placed, end = parse_literal(text + "\nrest", 0)
        assert placed.plain() == value
        assert end == len(text)


@quick
@given(st.text(alphabet='[]{}",:`1a-. \nnulltrue', max_size=30))
def test_no_text_breaks_the_reader_of_literals(text: str) -> None:
    try:
        placed, end = parse_literal(text, 0)
    except NotLiteral:
        return
    assert 0 < end <= len(text)
    placed.plain()


@quick
@given(st.text(alphabet="ab.*+?|()[]{}^$\\-=1,:imsUdwbQEz\n", max_size=14))
def test_no_pattern_breaks_the_lint_and_its_examples_are_true(pattern: str) -> None:
    found = sample(pattern)
    assert found is None or matches(pattern, found)
    for remark in (*remarks_on(pattern), *remarks_on_env(pattern)):
        assert not remark.example or matches(pattern, remark.example)


@pytest.mark.parametrize(
    "text",
    ["", "{", "{}", "[]", "package", "\x00", "cGFja2FnZQ==", "package a\npackage b", '{"containers": 5}'],
)
def test_damaged_files_are_refused_or_found_fault_with(text: str) -> None:
    assert any(one.level in ("error", "warning") for one in check(text))
