"""Lists that are taken out of a policy's text mean what they meant in it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policies import container, policy

from uvmd_policy_rego import literals, modules
from uvmd_policy_rego.literals import split

values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(alphabet='a,]}"\\\n#[{ü ', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet="k:,]", max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.lists(values, max_size=4), st.sampled_from([None, 2]))
def test_every_json_list_is_found_as_it_was_written(listed: list[object], indent: int | None) -> None:
    text = f"package policy\nflag := true\ncontainers := {json.dumps(listed, indent=indent)}\nother := 1\n"
    found = split(text)
    assert found.lists == {"containers": listed}
    assert found.text == "package policy\nflag := true\nother := 1\n"


def test_commas_after_the_last_element_are_regos() -> None:
    found = split('package policy\ncontainers := [\n    {"a": ["x,]",], },\n]\n')
    assert found.lists == {"containers": [{"a": ["x,]"]}]}


@given(listed=st.lists(values, min_size=1, max_size=4), indent=st.sampled_from([None, 1]))
def test_commas_in_texts_stay(listed: list[object], indent: int | None) -> None:
    text = json.dumps(listed, indent=indent)[:-1] + ", ]"
    assert json.loads(literals._without_last_commas(text)) == listed
    # The way for lines of megabytes leads to the same.
    assert literals.LAST_COMMA_OR_TEXT.sub(r"\1", text) == literals._without_last_commas(text)


@pytest.mark.parametrize(
    "text",
    [
        'package policy\ncontainers := [{"a": input.x}]\n',
        "package policy\ncontainers := [1]\ncontainers := [1]\n",
        "package policy\ncontainers := [1] if true\n",
        "package policy\ncontainers := [1]\nx := containers\n",
        'package policy\ncontainers := [{"a": 1, "a": 2}]\n',
        "package policy\ncontainers := [NaN]\n",
        "package policy\nx := `\ncontainers := [1]\n`\n",
        "package policy\ncontainers := [1 # one\n]\n",
        "package other\ncontainers := [1]\n",
        "# words\npackage policy\ncontainers := [1]\n",
        "package policy\ndefault containers := [1]\n",
    ],
)
def test_in_doubt_the_text_stays_whole(text: str) -> None:
    found = split(text)
    assert found == (text, {})


def test_a_tools_policy_loses_all_its_lists() -> None:
    found = split(policy(container(), fragments=[], external_processes=[]))
    assert set(found.lists) == {"containers", "fragments", "external_processes"}


ALIAS = "mount_overlay := data.framework.mount_overlay"


@pytest.mark.parametrize(
    "more",
    [
        "",
        'api_version := "0.12.0"  # "as of today"',
        "import rego.v1",
        "import future.keywords.in",
        'dump_stacks := {"allowed": true, "list": [1, -2.5e3, null]}\r',
        'reason := {"errors": data.framework.errors}',
        "exec_external = data.framework.exec_in_container",
        "# x := {",
    ],
)
def test_a_rule_that_is_the_frameworks_is_asked_for_there(more: str) -> None:
    assert modules.frameworks_rules(f"package policy\n{more}\n{ALIAS}\n") == {"mount_overlay"}


@pytest.mark.parametrize(
    "more",
    [
        f"{ALIAS}",
        'mount_overlay := {"allowed": true}',
        "default mount_overlay := false",
        "x {",
        "x if {",
        "x := {",
        "x := `",
        "mount_overlay.allowed := true",
        "mount_overlay[x] := true",
        "x := input.y",
        "x := count([1])",
        "x := [1 | true]",
        "import data.other",
        'data := {"framework": {}}',
        "1x := 1",
        "import rego.v1 as data",
        'x := {"allowed": true} { input.y }',
        "x := true if input.y",
        "x := 1; y := 2",
        "package other",
        'else := "x"  {',
    ],
)
def test_where_a_line_could_mean_more_every_rule_is_the_policys(more: str) -> None:
    assert modules.frameworks_rules(f"package policy\n{more}\n{ALIAS}\n") == frozenset()
    assert modules.frameworks_rules(f"package policy\n{ALIAS}\n{more}\n") == frozenset()
    assert modules.frameworks_rules(f"package other\n{ALIAS}\n") == frozenset()


def test_a_long_line_that_does_not_fit_is_refused_quickly() -> None:
    line = "x := [" + "1, " * 50_000 + "1e" * 50_000 + "]!"
    assert modules.frameworks_rules(f"package policy\n{line}\n{ALIAS}\n") == frozenset()
    assert modules.frameworks_rules(f"package policy\nx := {'1' * 100_000}!\n{ALIAS}\n") == frozenset()
