"""Which request types a type serves, and which plans it may make."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.api.names import EXEMPT, MODIFY_RESOURCE, PROVIDED_BY, is_protocol_name
from uvmd.api.resources import Handler, Plan, Question, Registered, ResourceType, Target, Verb
from uvmd.errors import Refused
from uvmd.host.plans import check_plan, cleaned, verb_of
from uvmd.host.table import clean


def entry(name: str, third_party: bool, **more: Any) -> Registered:
    return Registered(ResourceType(name, "", **more), "plugin", third_party, lambda: Handler(None))  # type: ignore[arg-type]


points = st.lists(st.sampled_from([MODIFY_RESOURCE, "mount_device", "mount_overlay", ""]), max_size=3)


@given(asked=points, declared=points, third_party=st.booleans(), exempt=st.booleans())
def test_a_plan_that_changes_something_asks_what_is_declared_or_is_exempt(
    asked: list[str], declared: list[str], third_party: bool, exempt: bool
) -> None:
    name = "example.com/T" if third_party else "Network" if exempt else "CombinedLayers"
    type_ = entry(name, third_party, points={Verb.ADD: tuple(declared)})
    plan = Plan(tuple(Question(point) for point in asked), lambda undo, answers: None)
    fine = set(asked) <= set(declared)
    fine = fine and (set(asked) == {MODIFY_RESOURCE} if third_party else bool(asked) or exempt)
    try:
        check_plan(type_, Verb.ADD, plan)
    except Refused:
        assert not fine
    else:
        assert fine


def test_no_third_party_can_be_exempt() -> None:
    assert all(is_protocol_name(name) for name in EXEMPT)
    assert set(EXEMPT) <= set(PROVIDED_BY)


def test_an_equal_plan_is_not_the_plan_for_nothing() -> None:
    nothing = Plan.nothing()
    check_plan(entry("example.com/T", True), Verb.ADD, nothing)
    with pytest.raises(Refused):
        check_plan(entry("example.com/T", True), Verb.ADD, Plan(*nothing))


def test_a_type_serves_its_verbs_and_core_types_without_verbs_any() -> None:
    assert verb_of(entry("T", False), "Remove") is Verb.REMOVE
    assert verb_of(entry("T", False, target=Target.VM, verbs=()), "PreAdd") is Verb.UPDATE
    with pytest.raises(Refused, match='"Update"'):
        verb_of(entry("T", False), "Update")


@given(st.text(alphabet="/.a", max_size=12))
def test_two_spellings_of_a_path_are_one_name(path: str) -> None:
    assert cleaned(f"path:{path}") == f"path:{clean(path)}" == cleaned(f"path:{clean(path)}")


def test_other_names_are_left_as_they_are() -> None:
    assert cleaned("device:0//1") == "device:0//1"


@pytest.mark.parametrize("name", ["", None, 7])
def test_a_name_that_is_no_text_is_a_mistake_of_the_handler(name: Any) -> None:
    with pytest.raises(TypeError):
        cleaned(name)
