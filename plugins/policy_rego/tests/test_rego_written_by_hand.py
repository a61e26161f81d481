"""Policies with rules of their own mean what they say: no short cut of ours is taken through them.

Each is held against an engine that has the text as it stands, looks through everything at
every question and never looks back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import ID, REASON, container, create, device, execute, overlay, policy

from uvmd.api import Fragment
from uvmd_policy_rego import documents, modules
from uvmd_policy_rego.engine import EngineError
from uvmd_policy_rego.fragments import load_fragment
from uvmd_policy_rego.legacy import FRAMEWORK_POINTS as POINTS
from uvmd_policy_rego.literals import Split, split
from uvmd_policy_rego.session import Session

HEAD = 'package policy\napi_version := "0.12.0"\nframework_version := "0.5.0"\n'
PLAIN, ELEVATED = json.dumps(container()), json.dumps(container(allow_elevated=True))
IMPORT = json.dumps([{"issuer": "did:x", "feed": "f", "minimum_svn": "1", "includes": ["containers"]}])
Asked = tuple[str, dict[str, Any]]
LIFE: list[Asked] = [
    ("mount_device", device("base", 0)),
    ("mount_device", device("top", 1)),
    ("mount_overlay", overlay(1, 0)),
    ("create_container", create()),
    ("exec_in_container", execute()),
    ("dump_stacks", {}),
]


def aliases(*without: str) -> str:
    points = (point for point in POINTS if point not in without)
    return "".join(f"{point} := data.framework.{point}\n" for point in points) + REASON


@contextmanager
def no_short_cuts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("is_pure", "is_settled"):
            patch.setattr(modules, name, lambda left: False)
        patch.setattr(modules, "frameworks_rules", lambda left: frozenset())
        patch.setattr(documents, "split", lambda text: Split(text, {}))
        yield


def plainly(text: str) -> Session:
    with no_short_cuts():
        session = Session(text)
    assert not session.documents.static
    return session


def load(session: Session, more: str = "") -> None:
    text = f'package extra\nsvn := 1\nframework_version := "0.5.0"\n{more}\n'
    assert load_fragment(session, Fragment("did:x", "f", text)).allowed


def allowed(session: Session, asked: list[Asked] = LIFE) -> list[str]:
    answers = [(point, session.enforce(point, input, json.dumps(input)).allowed) for point, input in asked]
    return [point for point, is_allowed in answers if is_allowed]


DENIED_OVERLAY = ["mount_device", "mount_device"]
DENIED_CREATE = [*DENIED_OVERLAY, "mount_overlay"]
NOT = 'default {0} := {{"allowed": false}}\n{0} := data.framework.{0} if not elevated\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # A condition on the line behind a list, or behind a version.
        (f"containers := [{PLAIN}]\nif input.never == 1\n", []),
        (f"allow_dump_stacks := true\ncontainers := [{PLAIN}]\nif {{\n\tinput.never == 1\n}}\n",
         ["dump_stacks"]),
        (f"x := true if\ncontainers := [{PLAIN}]\n", []),
        # What stands in a body is not the policy's.
        (f"x if {{\ncontainers := [{PLAIN}]\ntrue\n}}\n", []),
        (f"containers := [{PLAIN}] if not locked\nlocked if {{\n\tis := data.framework.x\n\tis\n}}\n",
         [*DENIED_CREATE, "create_container", "exec_in_container"]),
        # A set of layers is no list of them.
        (f"containers := [{PLAIN}]\n".replace('["base", "top"]', '{"base", "top"}'), DENIED_OVERLAY),
        # What is no list of rules allows nothing, not even no variables.
        (f"containers := [{json.dumps(container(env_rules=None))}]\n", DENIED_CREATE),
        (f"containers := [{json.dumps(container(env_rules='x'))}]\n", DENIED_CREATE),
        ("containers := [{}]\n".format(PLAIN.replace('"env_rules"', '"other": [,], "env_rules"')), None),
        ("containers := [{}]\n".format(PLAIN.replace('"env_rules"', '"other": 1e400, "env_rules"')), None),
    ],
)  # fmt: skip
def test_a_list_is_the_policys_where_its_text_says_so(text: str, expected: list[str] | None) -> None:
    text = HEAD + text + aliases()
    if expected is None:
        with pytest.raises(EngineError):
            Session(text)
        return
    asked = [*LIFE[:3], ("create_container", create(envList=[])), *LIFE[4:]] if "env_rules" in text else LIFE
    assert allowed(Session(text), asked) == allowed(plainly(text), asked) == expected


@pytest.mark.parametrize(
    ("point", "rules", "expected"),
    [
        ("mount_overlay",
         "elevated if {\n\tsome c in data.framework.overlay_matches\n\tc.allow_elevated\n}\n",
         DENIED_OVERLAY),
        ("mount_overlay", "elevated if data.framework.mount_overlay.metadata[_].value[_].allow_elevated\n",
         DENIED_OVERLAY),
        ("mount_overlay", "elevated if count(data.framework.overlay_matches) != 1\n",
         [*DENIED_CREATE, "create_container", "exec_in_container"]),
        ("create_container",
         "elevated if data.framework.create_container.metadata[0].value[_].allow_elevated\n",
         DENIED_CREATE),
        ("create_container", "elevated if data.framework.matches[_].allow_elevated\n", DENIED_CREATE),
        ("exec_in_container", "elevated if data.metadata.matches[input.containerID][_].allow_elevated\n",
         [*DENIED_CREATE, "create_container"]),
        ("mount_device",
         'elevated if {\n\tsome hash in data.framework.layer_hashes\n\thash == "base"\n}\n',
         []),
    ],
)  # fmt: skip
def test_a_rule_sees_what_the_framework_found(point: str, rules: str, expected: list[str]) -> None:
    text = HEAD + f"containers := [{ELEVATED}]\n" + aliases(point) + NOT.format(point) + rules
    one = Session(text)
    assert one.documents.static
    assert allowed(one) == allowed(plainly(text)) == expected


def test_what_a_policy_declares_may_hang_on_what_was_loaded() -> None:
    body = "\tloaded_fragments := data.framework.loaded_fragments\n\tcount(loaded_fragments) == 0\n"
    text = HEAD + f"fragments := {IMPORT}\ncontainers := [{PLAIN}] if {{\n{body}}}\n" + aliases()
    for make in (Session, plainly):
        one = make(text)
        assert allowed(one, LIFE[:1]) == ["mount_device"]
        load(one)
        assert allowed(one, LIFE[1:3]) == []


def test_what_a_policy_declares_may_hang_on_the_question() -> None:
    body = "\tcontainer_started := data.framework.container_started\n\tcontainer_started\n"
    text = HEAD + f"containers := [] if {{\n{body}}} else := [{PLAIN}]\n" + aliases()
    late: Asked = ("mount_device", {**device("base", 5), "containerID": ID})
    for make in (Session, plainly):
        one = make(text)
        assert allowed(one, [*LIFE[:4], late]) == [*DENIED_CREATE, "create_container"]


def test_a_version_may_have_a_condition() -> None:
    condition = f'if not input.target == "/run/gcs/c/{ID}/rootfs"\n'
    text = HEAD + condition + f"containers := [{PLAIN}]\n" + aliases()
    assert not Session(text).documents.static
    assert allowed(Session(text)) == allowed(plainly(text)) == DENIED_OVERLAY


def mounts_at_load(count: int) -> str:
    return f"containers := [c | some c in [{PLAIN}]; count(data.defaultMounts) == {count}]"


@pytest.mark.parametrize("make", [Session, plainly])
def test_a_fragment_sees_the_default_mounts_that_were_added(make: Callable[[str], Session]) -> None:
    text = policy(container(layers=["else"]), fragments=json.loads(IMPORT))
    before = len(make(text).documents.default_mounts)
    for count, expected in ((before, []), (before + 1, DENIED_CREATE)):
        one = make(text)
        one.documents.extend_default_mounts([{"destination": "/etc/hosts"}])
        load(one, mounts_at_load(count))
        assert allowed(one, LIFE[:3]) == expected


@pytest.mark.parametrize(
    ("condition", "document"),
    [
        ("with data.metadata.matches as {}", "data.metadata"),
        ("with data.metadata as {}", "data.metadata"),
        ("with data . privilegedMounts as []", "data.privilegedMounts"),
        ("with data.defaultMounts as []", "data.defaultMounts"),
        ('with data["metadata"] as {}', "data"),
        ("with data as {}", "data"),
    ],
)
def test_what_the_framework_would_not_notice_is_refused(condition: str, document: str) -> None:
    more = f"x := data.framework.create_container {condition}\n"
    for text in (policy(more=more), policy(more="import data.metadata as m\nx := 1 with m.matches as {}\n")):
        with pytest.raises(EngineError, match="would have no effect on the framework's rules here"):
            Session(text)
    with pytest.raises(EngineError, match=f"`with {document}`"):
        Session(policy(more=more))
    one = Session(policy(fragments=json.loads(IMPORT)))
    text = f'package extra\nsvn := 1\nframework_version := "0.5.0"\ncontainers := []\n{more}'
    assert not load_fragment(one, Fragment("did:x", "f", text)).allowed


@pytest.mark.parametrize(
    "condition", ["with data.policy.containers as []", "with data.framework.candidate_containers as []"]
)
def test_what_the_framework_notices_may_be_replaced(condition: str) -> None:
    rule = f"mount_overlay := r if {{ r := data.framework.mount_overlay {condition} }}\n"
    text = HEAD + f"containers := [{PLAIN}]\n" + aliases("mount_overlay") + rule
    assert allowed(Session(text)) == allowed(plainly(text)) == DENIED_OVERLAY


LINES = [
    "allow_dump_stacks := true", "allow_dump_stacks := false", f"containers := [{PLAIN}]", "containers := []",
    "  containers := []", "fragments := []", "if input.never == 1", "if {", "}", "else := []", "default",
    "default containers := []", "x := ", "x if", "[", "]", "| {1}", "== [1]", "in [1]", "# \" ` [", '"s"',
    "y := `\ncontainers := []\n`",
    "x := true", "api_svn := 1", "with input as 1", "not x", "\r", "some x in [1]",
    "mount_overlay := data.framework.mount_overlay", "x contains 1", "{ true }", ", 2", ".v", "+ 1",
]  # fmt: skip


@settings(max_examples=300)
@given(
    before=st.lists(st.sampled_from(LINES), max_size=3),
    after=st.lists(st.sampled_from(LINES), max_size=3),
    listed=st.sampled_from(LINES[2:4]),
)
def test_no_mixture_of_lines_is_taken_for_another(before: list[str], after: list[str], listed: str) -> None:
    text = HEAD + "\n".join([*before, listed, *after, ""]) + aliases("mount_overlay")
    try:
        expected = allowed(plainly(text))
    except EngineError:
        expected = []
    try:
        found = allowed(Session(text))
    except EngineError:  # some mistakes of a text are found by the first question alone
        found = []
    assert found == expected


def test_tools_policies_still_take_the_short_cuts() -> None:
    reasons = REASON, 'reason := {"errors": data.framework.errors}\n'
    for reason in reasons:
        one = Session(policy(allow_dump_stacks=True).replace(REASON, f"{reason}\n# the end"))
        assert one.documents.static
        assert one.documents.state is not None
        assert one.documents.rule_of("mount_overlay") == "data.framework.mount_overlay"
        assert split(policy()).lists
