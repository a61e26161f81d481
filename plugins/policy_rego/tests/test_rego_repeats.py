"""A question that comes again is answered as if it had never come before."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import ID, OTHER, container, create, device, execute, overlay, policy
from sessions import allow, deny, started

from uvmd.api import Fragment
from uvmd_policy_rego.fragments import load_fragment
from uvmd_policy_rego.session import Session

SIGNAL = {"containerID": ID, "signal": 15, "isInitProcess": True, "argList": ["web"]}
#: The same few again and again, in any order.
QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    ("mount_device", device("base", 0)),
    ("mount_device", device("top", 1)),
    ("unmount_device", {"unmountTarget": device("top", 1)["target"]}),
    ("scratch_mount", {"target": "/s", "encrypted": True}),
    ("mount_overlay", overlay(1, 0)),
    ("mount_overlay", overlay(1, 0, id=OTHER)),
    ("create_container", create()),
    ("create_container", create(containerID=OTHER)),
    ("exec_in_container", execute()),
    ("exec_in_container", execute(containerID=OTHER)),
    ("signal_container_process", SIGNAL),
    ("shutdown_container", {"containerID": ID}),
    ("get_properties", {}),
]
TEXT = policy(container(), container(signals=[15]), allow_properties_access=True)


def evaluations(session: Session) -> list[str]:
    """What the engine is asked from now on."""
    asked: list[str] = []
    find = session.documents.find

    def noted(path: str) -> list[Any]:
        asked.append(path)
        return find(path)

    session.documents.find = noted  # type: ignore[method-assign]
    return asked


@settings(max_examples=60)
@given(order=st.lists(st.sampled_from(range(len(QUESTIONS))), max_size=25))
def test_answers_and_what_is_remembered_are_those_of_one_that_never_looks_back(order: list[int]) -> None:
    remembering, forgetful = Session(TEXT), Session(TEXT)
    forgetful.documents._frameworks = frozenset()  # nor does it take the shorter way to a rule
    for number in order:
        point, asked = QUESTIONS[number]
        one = remembering.enforce(point, asked, json.dumps(asked))
        other = forgetful.enforce(point, asked)
        assert one == other, point
        assert remembering.documents.changes() == forgetful.documents.changes()
    assert remembering.documents.store.digest() == forgetful.documents.store.digest()


def test_a_probe_in_a_container_is_evaluated_until_nothing_changes_any_more() -> None:
    session = started(policy(container(), container(command=["other"])))
    asked = evaluations(session)
    for _ in range(5):
        allow(session, "exec_in_container", execute())
    assert asked.count("data.framework.exec_in_container") == 1
    allow(session, "mount_device", device("base", 7))
    allow(session, "exec_in_container", execute())
    assert asked.count("data.framework.exec_in_container") == 2


def test_a_no_is_evaluated_each_time() -> None:
    session = started()
    asked = evaluations(session)
    for _ in range(2):
        deny(session, "exec_in_container", execute(argList=["nothing", "known"]))
    assert asked.count("data.framework.exec_in_container") == 2


def test_another_mount_for_all_is_another_question() -> None:
    session = started()
    asked = evaluations(session)
    for _ in range(2):
        allow(session, "exec_in_container", execute())
        session.documents.extend_default_mounts([{"destination": "/etc/hosts"}])
    assert asked.count("data.framework.exec_in_container") == 2


@pytest.mark.parametrize(
    "more",
    [
        'modify_resource := {"allowed": time.now_ns() > 0}',
        'modify_resource := {"allowed": input.x == 1}',
        'x := data.metadata.y\nmodify_resource := {"allowed": true}',
    ],
)
def test_a_policy_that_looks_beyond_its_own_text_is_evaluated_each_time(more: str) -> None:
    session = Session(policy(more=more + "\n"))
    asked = evaluations(session)
    for _ in range(2):
        allow(session, "modify_resource", {"x": 1})
    assert asked.count("data.policy.modify_resource") == 2


@pytest.mark.parametrize(("includes", "evaluated"), [(["containers"], 1), (["containers", "namespace"], 2)])
def test_a_fragment_whose_own_rules_stay_has_everything_evaluated_each_time(
    includes: list[str], evaluated: int
) -> None:
    imports = {"issuer": "did:x", "feed": "f", "minimum_svn": "1", "includes": includes}
    session = started(policy(container(), fragments=[imports]))
    asked = evaluations(session)
    text = 'package extra\nsvn := 1\nframework_version := "0.5.0"\ncontainers := []\n'
    assert load_fragment(session, Fragment("did:x", "f", text)).allowed
    assert bool(session.documents.kept) is ("namespace" in includes)
    for _ in range(2):
        allow(session, "exec_in_container", execute())
    assert asked.count("data.framework.exec_in_container") == evaluated


def test_few_are_kept_and_none_that_is_long() -> None:
    session = Session(TEXT)
    asked = evaluations(session)
    for _ in range(2):
        for number in range(100):
            allow(session, "get_properties", {"number": number})
        allow(session, "get_properties", {"long": "x" * 70_000})
    assert len(session._repeats._known) <= 64
    assert asked.count("data.framework.get_properties") > 150
