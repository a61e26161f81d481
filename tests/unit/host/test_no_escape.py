"""No plan escapes the policy: whatever a handler plans and an enforcer answers, in every VM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from uvmd.api.names import EXEMPT, MODIFY_RESOURCE, PROVIDED_BY, is_protocol_name
from uvmd.api.policy import Decision
from uvmd.api.resources import Answers, Claim, Found, Handler, Plan, Question, ResourceType, Verb
from uvmd.api.testing import Workbench
from uvmd.api.testing.scripted import POLICY, ScriptedEnforcer
from uvmd.api.transaction import Undo
from uvmd.api.wire import Field, WireModel
from uvmd.errors import UvmdError

STORAGE = ("MappedVirtualDisk", "VPMemDevice", "CombinedLayers", "MappedDirectory")
NAMES = (*STORAGE, "Network", "VPCIDevice", "SCSIDevice", "example.com/One", "example.com/Two")
#: Few, so that what is asked is often what is declared.
SOME_POINTS = (MODIFY_RESOURCE, "mount_device", "mount_overlay")
#: Everything that an enforcer may do but say yes.
NOES: dict[str, Callable[[], Any]] = {
    "no": lambda: False,
    "an exception": lambda: ValueError("x"),
    "a panic": lambda: BaseException("x"),
    "late": TimeoutError,
    "nothing": lambda: lambda input: None,
    "an object": lambda: lambda input: {"allowed": True},
    "allowed is 1": lambda: Decision(1),  # type: ignore[arg-type]
    "odd stdio": lambda: Decision(True, stdio=1),  # type: ignore[arg-type]
}


class Body(WireModel):
    path: str = Field("/p", alias="Path")


class Schemer(Handler):
    """Plans what the test says, and remembers whether it was let."""

    settings = Body

    def __init__(self, plan: object) -> None:
        self.made = plan
        self.applied: list[Answers] = []

    def identity(self, settings: Body) -> str:
        return f"path:{settings.path}"

    def add(self, settings: Body, found: Found, view: Any, record: Any) -> Any:
        return self.made

    remove = update = add


questions = st.lists(
    st.builds(
        Question,
        st.sampled_from([*SOME_POINTS * 3, "no_such_point", ""]),
        st.dictionaries(
            st.sampled_from(["target", "resource_type", "settings"]), st.just("forged"), max_size=2
        ),
    ),
    max_size=3,
)
declared = st.dictionaries(
    st.sampled_from(list(Verb)), st.sets(st.sampled_from(SOME_POINTS), min_size=1).map(tuple), min_size=2
)


@settings(max_examples=200)
@given(
    name=st.sampled_from(NAMES),
    asked=questions,
    points=declared,
    verb=st.sampled_from(["Add", "Remove", "Update", ""]),
    strict=st.booleans(),
    answers=st.dictionaries(st.sampled_from(SOME_POINTS), st.sampled_from(sorted(NOES)), max_size=2),
    otherwise=st.sampled_from([True] * len(NOES) + sorted(NOES)),
)
def test_apply_runs_only_where_everything_that_must_be_asked_was_allowed(
    name: str,
    asked: list[Question],
    points: dict[Verb, tuple[str, ...]],
    verb: str,
    strict: bool,
    answers: dict[str, str],
    otherwise: bool | str,
) -> None:
    schemer = Schemer(None)

    def apply(undo: Undo, given: Answers) -> None:
        schemer.applied.append(given)

    schemer.made = Plan(tuple(asked), apply, claims=(Claim("/p", "x"),))
    try:
        type_ = ResourceType(name, "x:Y", verbs=tuple(Verb), points=points)
    except (ValueError, UvmdError):
        return
    bench = Workbench([type_], handlers={name: schemer})
    enforcer = ScriptedEnforcer(POLICY)
    if strict:
        enforcer = bench.be_strict({point: NOES[how]() for point, how in answers.items()})
        enforcer.otherwise = True if otherwise is True else NOES[str(otherwise)]()
    try:
        bench.request(verb, name, {"Path": "/p"})
    except UvmdError:
        assert schemer.applied == []
        assert bench.mounted() == []
        return
    names = [question.point for question in asked]
    listed = type_.points_of(Verb(verb or "Add"))
    assert schemer.applied, "answered as done"
    assert set(names) <= set(listed)
    if not is_protocol_name(name):
        assert MODIFY_RESOURCE in names
        assert set(names) == {MODIFY_RESOURCE}
    assert names or name in EXEMPT
    if strict:
        assert enforcer.points == names
        for point in names:
            assert point not in answers
            assert otherwise is True
        for point, input in enforcer.asked:
            if point == MODIFY_RESOURCE:
                # Whatever the handler wrote: core says what it is about.
                assert input["resource_type"] == name
                assert input["settings"] == {"Path": "/p"}
                assert input["target"] != "forged"


@given(plan=st.sampled_from([None, True, {}, (), [], "plan", ((), None, (), ()), Plan, Schemer]))
def test_what_is_no_plan_is_never_carried_out(plan: object) -> None:
    for name in ("Network", "CombinedLayers", "example.com/One"):
        bench = Workbench([ResourceType(name, "x:Y")], handlers={name: Schemer(plan)})
        try:
            bench.add(name, {})
        except UvmdError:
            assert bench.mounted() == []
        else:
            raise AssertionError(f"{plan!r} was carried out")


def test_the_names_above_are_all_there_are() -> None:
    core = {name for name, by in PROVIDED_BY.items() if by == "uvmd"}
    assert {name for name in NAMES if is_protocol_name(name)} == set(PROVIDED_BY) - core
