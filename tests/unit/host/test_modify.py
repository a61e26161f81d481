"""Find, plan, ask, apply: the order, and that no plan escapes the policy."""

from __future__ import annotations

from typing import Any

import pytest

from support.things import ID, IN_CONTAINER, NAME, SETTINGS, Thing, bench, done
from uvmd.api import Decision, Plan, Question, ResourceType, Verb
from uvmd.api.testing import Workbench
from uvmd.errors import (
    ContainerNotFound,
    Inconsistent,
    InvalidMessage,
    InvalidState,
    Refused,
    UvmdError,
)
from uvmd.host.requests import NULL_ID
from uvmd.observe.steps import Trace, follow, steps_of

# The way through


def test_a_change_is_found_planned_asked_and_applied() -> None:
    workbench, thing = bench()
    enforcer = workbench.be_strict()
    workbench.add(NAME, SETTINGS)
    assert thing.steps == ["find strict", "plan", "apply"]
    assert enforcer.points == ["modify_resource"]
    assert workbench.mounted() == ["/run/thing"]
    assert workbench.record(NAME, "path:/run/thing") == {"v": 1}
    assert thing.answers == [(Decision(True),)]
    assert workbench.lock.table() == ()


def test_the_steps_of_a_change_are_noted_in_their_order_for_who_listens() -> None:
    workbench, _ = bench()
    workbench.be_strict()
    trace = Trace(0)
    follow(trace)
    workbench.add(NAME, SETTINGS)
    follow(None)
    assert [one.name for one in steps_of(trace.take(), 1 << 62)] == [
        f"find {NAME}",
        "plan",
        "policy snapshot",
        "policy modify_resource",
        "journal",
        f"apply {NAME}",
        "journal",
    ]


def test_the_policy_is_told_type_verb_target_and_settings_whatever_the_handler_says() -> None:
    workbench, thing = bench()
    enforcer = workbench.be_strict()
    lies = {"resource_type": "Harmless", "request_type": "Remove", "target": "x", "settings": {}}
    thing.plan = Plan((Question("modify_resource", {"hash": "abc", **lies}),), lambda undo, answers: None)
    workbench.add(NAME, {"path": "/run/thing", "Unknown": 1})
    assert enforcer.asked == [
        (
            "modify_resource",
            {
                "hash": "abc",
                "resource_type": NAME,
                "request_type": "Add",
                "target": "00000000-0000-0000-0000-000000000000",
                "settings": {"Path": "/run/thing"},
            },
        )
    ]


def test_remove_is_given_what_add_recorded_and_forgets_it() -> None:
    workbench, thing = bench()
    thing.made = {"v": 1, "mount_id": 7}
    workbench.add(NAME, SETTINGS)
    workbench.remove(NAME, SETTINGS)
    workbench.remove(NAME, SETTINGS)
    assert thing.records == [None, {"v": 1, "mount_id": 7}, None]
    assert workbench.mounted() == []


def test_a_missing_request_type_is_an_add() -> None:
    workbench, _ = bench()
    workbench.request("", NAME, SETTINGS)
    assert workbench.mounted() == ["/run/thing"]


def test_what_a_container_type_keeps_is_kept_by_container() -> None:
    workbench, _ = bench()
    workbench.host.states = {"c1": "running", "c2": "created"}
    workbench.add(IN_CONTAINER.name, SETTINGS, "c1")
    assert workbench.record(IN_CONTAINER.name, "c1 path:/run/thing") == {"v": 1}
    assert workbench.record(IN_CONTAINER.name, "c2 path:/run/thing") is None


# What is refused before anything is looked for


@pytest.mark.parametrize(
    ("target", "request_type", "name", "settings", "error", "text"),
    [
        ("no such container", "Add", "MappedVirtualDisk", None, Refused, "invalid ResourceType"),
        ("no such container", "Add", NAME, None, InvalidMessage, "Settings: is missing"),
        ("no such container", "Add", NAME, {"Path": 1}, InvalidMessage, "Settings.Path: should be a string"),
        ("no such container", "Add", NAME, SETTINGS, ContainerNotFound, "not known"),
        ("new", "Add", NAME, SETTINGS, InvalidState, "being created"),
        ("c", "Add", NAME, SETTINGS, Refused, "not supported for containers"),
        ("", "Add", IN_CONTAINER.name, SETTINGS, ContainerNotFound, "not known"),
        (NULL_ID, "Add", IN_CONTAINER.name, SETTINGS, ContainerNotFound, "the VM is none"),
        (NULL_ID, "Update", NAME, SETTINGS, Refused, 'RequestType "Update" is not supported'),
        (NULL_ID, "add", NAME, SETTINGS, Refused, 'RequestType "add" is not supported'),
        (NULL_ID, "PreAdd", NAME, SETTINGS, Refused, 'RequestType "PreAdd" is not supported'),
    ],
)
def test_a_request_that_nobody_serves_is_refused_in_the_order_of_the_checks(
    target: str, request_type: str, name: str, settings: object, error: type[UvmdError], text: str
) -> None:
    workbench, thing = bench()
    workbench.host.states = {"c": "running", "new": "creating"}
    with pytest.raises(error, match=text):
        workbench.request(request_type, name, settings, target)
    assert thing.steps == []


def test_in_a_strict_vm_an_id_that_is_none_is_refused_before_the_target() -> None:
    workbench, _ = bench()
    workbench.be_strict()
    with pytest.raises(Refused, match="invalid container id"):
        workbench.add(NAME, SETTINGS, "no such container")
    with pytest.raises(ContainerNotFound):
        workbench.add(NAME, SETTINGS, ID)


def test_in_a_strict_vm_a_key_sent_in_two_spellings_is_refused() -> None:
    workbench, _ = bench()
    workbench.be_strict()
    with pytest.raises(InvalidMessage, match="sent twice"):
        workbench.add(NAME, {"Path": "/a", "PATH": "/b"})


def test_an_inconsistent_vm_takes_no_change_of_a_latched_type() -> None:
    workbench, thing = bench()
    workbench.be_strict()
    workbench.gate.mark("umount failed")
    with pytest.raises(Inconsistent):
        workbench.add(NAME, SETTINGS)
    assert thing.steps == []


def test_the_latch_is_looked_at_again_under_the_lock() -> None:
    workbench, thing = bench()
    workbench.be_strict()
    thing.before["find strict"] = lambda: workbench.gate.mark("meanwhile")
    with pytest.raises(Inconsistent, match="meanwhile"):
        workbench.add(NAME, SETTINGS)
    assert thing.steps == ["find strict"]


def test_a_policy_that_came_while_finding_makes_it_find_again() -> None:
    workbench, thing = bench()
    thing.before["find loose"] = lambda: workbench.be_strict()
    workbench.add(NAME, SETTINGS)
    assert thing.steps == ["find loose", "find strict", "plan", "apply"]


def test_a_policy_that_came_while_finding_also_judges_the_id_anew() -> None:
    workbench, thing = bench()
    workbench.host.states = {"c": "running"}
    thing.before["find loose"] = lambda: workbench.be_strict()
    with pytest.raises(Refused, match="invalid container id"):
        workbench.add(IN_CONTAINER.name, SETTINGS, "c")


# No plan escapes the policy


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (Plan((), done), f"{NAME} Add: its plan does not ask modify_resource"),
        (Plan((Question("mount_device"),), done), "asks mount_device, which the type does not declare"),
        (
            Plan((Question("modify_resource"), Question("mount_device")), done),
            "asks mount_device, which the type does not declare",
        ),
        (Plan((), lambda undo, answers: None), "does not ask"),
        ({"questions": ()}, "returned dict, not a plan"),
        (((), done, (), ()), "returned tuple, not a plan"),
    ],
)
def test_a_plan_without_its_point_is_refused_in_every_vm(strict: bool, plan: object, text: str) -> None:
    workbench, thing = bench()
    if strict:
        workbench.be_strict()
    thing.plan = plan
    with pytest.raises(Refused, match=text):
        workbench.add(NAME, SETTINGS)
    assert workbench.mounted() == []


@pytest.mark.parametrize("strict", [True, False])
def test_the_plan_for_nothing_needs_no_question(strict: bool) -> None:
    workbench, thing = bench()
    if strict:
        workbench.be_strict({"modify_resource": False})
    thing.plan = Plan.nothing()
    workbench.add(NAME, SETTINGS)
    assert workbench.record(NAME, "path:/run/thing") is None


@pytest.mark.parametrize(
    ("name", "points", "asked", "allowed"),
    [
        ("MappedVirtualDisk", {Verb.ADD: ("mount_device",)}, ("mount_device",), True),
        ("MappedVirtualDisk", {Verb.ADD: ("mount_device",)}, (), False),
        ("MappedVirtualDisk", {Verb.REMOVE: ("unmount_device",)}, ("unmount_device",), False),
        ("Network", {Verb.ADD: ()}, (), True),
        ("SCSIDevice", {Verb.ADD: ()}, (), True),
        ("SCSIDevice", {Verb.ADD: ()}, ("mount_device",), False),
        ("example.com/Network", {Verb.ADD: ()}, (), False),
        ("example.com/Disk", {Verb.ADD: ("mount_device",)}, ("mount_device",), False),
    ],
)
def test_who_must_ask_what(name: str, points: Any, asked: tuple[str, ...], allowed: bool) -> None:
    thing, applied = Thing(), []
    thing.plan = Plan(tuple(Question(point) for point in asked), lambda undo, answers: applied.append(1))
    workbench = Workbench([ResourceType(name, "", points=points)], handlers={name: thing})
    if allowed:
        workbench.add(name, SETTINGS)
    else:
        with pytest.raises(Refused, match=f"{name} Add: its plan"):
            workbench.add(name, SETTINGS)
    assert bool(applied) is allowed


def test_a_remove_that_spells_the_path_differently_finds_the_record() -> None:
    workbench, thing = bench()
    workbench.add(NAME, {"Path": "/run/./thing/"})
    workbench.remove(NAME, SETTINGS)
    assert thing.records == [None, {"v": 1}]
