from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.observe.scrub import MARK, SECRET, is_secret, scrub

SECRET_TEXT = "s3cr3t"
spellings = st.sampled_from(sorted(SECRET)).flatmap(
    lambda key: st.sampled_from([key, key.upper(), key.title(), "_".join(key)])
)
secrets = st.just(SECRET_TEXT) | st.just([SECRET_TEXT]) | st.just({SECRET_TEXT: SECRET_TEXT})
trees = st.recursive(
    st.dictionaries(spellings, secrets, min_size=1, max_size=3),
    lambda inner: st.dictionaries(st.text(max_size=3), inner | st.lists(inner, max_size=2), max_size=3),
    max_leaves=8,
)


@given(trees)
def test_no_secret_survives_at_any_depth(facts: dict[str, Any]) -> None:
    assert SECRET_TEXT not in str(scrub(facts))


@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        ({"env": ["A=1"]}, {"env": [MARK]}),
        ({"Environment": {"A": "1"}}, {"Environment": {MARK: MARK}}),
        ({"command_line": "sh -c x"}, {"command_line": MARK}),
        ({"EncodedSecurityPolicy": "cGFja2FnZQ=="}, {"EncodedSecurityPolicy": MARK}),
        ({"process": {"args": ("a",), "cwd": "/"}}, {"process": {"args": [MARK], "cwd": "/"}}),
        ({"env": [], "args": (), "token": ""}, {"env": [], "args": [], "token": ""}),
        ({"annotations": {}}, {"annotations": {}}),
        ({"policy": None, "stdin": True}, {"policy": None, "stdin": True}),
        ({"secret": 7, "secret_": b"x"}, {"secret": MARK, "secret_": MARK}),
        ({"container": "c", "pid": 7}, {"container": "c", "pid": 7}),
    ],
)
def test_the_form_of_what_was_there_is_kept(facts: dict[str, Any], shown: dict[str, Any]) -> None:
    assert scrub(facts) == shown


def test_what_is_given_is_not_changed() -> None:
    facts = {"a": {"env": ["A=1"]}}
    scrub(facts)
    assert facts == {"a": {"env": ["A=1"]}}


def test_a_value_that_contains_itself_comes_to_an_end() -> None:
    ring: dict[str, Any] = {}
    ring["again"] = ring
    lists: list[Any] = []
    lists.append(lists)
    assert MARK in str(scrub({"ring": ring, "lists": lists}))


def test_names_are_compared_without_case_and_underscores() -> None:
    assert is_secret("Command_Args")
    assert not is_secret("command")
