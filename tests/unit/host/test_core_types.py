"""The resource types that core serves itself."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from uvmd.api.envelopes import Fragment
from uvmd.api.names import EXEMPT, PROVIDED_BY
from uvmd.api.testing import POLICY, ScriptedEnforcer, Workbench
from uvmd.errors import ContainerNotFound, InvalidMessage, PolicyDenied, Refused
from uvmd.host.core_handlers import STRICT_CONSTRAINTS
from uvmd.host.core_types import core_types
from uvmd.host.requests import NULL_ID
from uvmd.policy.gate import Gate

ID = "ab" * 32


def bench(strict: bool = False) -> Workbench:
    workbench = Workbench()
    workbench.host.states = {ID: "running"}
    if strict:
        workbench.be_strict()
    return workbench


def test_core_serves_four_types_and_each_may_go_without_a_question() -> None:
    workbench = bench()
    assert set(core_types(Gate(), workbench.host)) == {
        name for name, distribution in PROVIDED_BY.items() if distribution == "uvmd"
    }
    assert set(workbench.types) <= set(EXEMPT)


@pytest.mark.parametrize("name", sorted(set(PROVIDED_BY) - set(bench().types)))
def test_types_of_plugins_are_unknown_until_one_is_installed(name: str) -> None:
    with pytest.raises(Refused, match=f"invalid ResourceType '{name}'"):
        bench().add(name, {})


# Limits of a container


@pytest.mark.parametrize("verb", ["Add", "Update", "Remove", "", "whatever"])
def test_new_limits_go_to_the_runtime_whatever_the_request_type(verb: str) -> None:
    workbench = bench()
    settings = {
        "Linux": {
            "Memory": {"Limit": 1 << 30},
            "cpu": {},
            "devices": [],
            "pids": None,
            "unified": {"memory.high": "max"},
        },
        "Windows": {"anything": 1},
    }
    workbench.request(verb, "ContainerConstraints", settings, ID)
    assert workbench.host.updates == [(ID, {"memory": {"limit": 1 << 30}, "unified": {"memory.high": "max"}})]


@pytest.mark.parametrize("settings", [{}, {"Linux": None}, {"Linux": {}}])
def test_no_limits_are_an_update_without_any(settings: dict[str, Any]) -> None:
    workbench = bench()
    workbench.add("ContainerConstraints", settings, ID)
    assert workbench.host.updates == [(ID, {})]


@pytest.mark.parametrize("key", ["devices", "Devices", "unified", "hugepageLimits", "fromTheFuture", "pidſ"])
def test_in_a_strict_vm_only_memory_cpu_and_pids_may_change(key: str) -> None:
    workbench = bench(strict=True)
    with pytest.raises(Refused, match=f"ContainerConstraints: .*'{key}'"):
        workbench.add("ContainerConstraints", {"Linux": {"memory": {"limit": 1}, key: {}}}, ID)
    assert workbench.host.updates == []


def test_in_a_strict_vm_the_allowed_limits_are_handed_on_without_unknown_fields() -> None:
    workbench = bench(strict=True)
    memory = {"limit": 1, "unheard": 2}
    limits = {"memory": memory, "CPU": {"shares": 3}, "pids": {"limit": 4}, "devices": None}
    workbench.add("ContainerConstraints", {"Linux": limits}, ID)
    assert workbench.host.updates == [
        (ID, {"memory": {"limit": 1}, "cpu": {"shares": 3}, "pids": {"limit": 4}})
    ]
    assert {"memory", "cpu", "pids"} == STRICT_CONSTRAINTS


def test_limits_of_another_type_are_refused_with_the_name_of_the_field() -> None:
    with pytest.raises(InvalidMessage, match=r"Settings.Linux.memory.limit is not an integer"):
        bench().add("ContainerConstraints", {"Linux": {"memory": {"limit": "1"}}}, ID)


@pytest.mark.parametrize("target", [NULL_ID, "cd" * 32])
def test_limits_of_a_container_that_is_none_are_refused(target: str) -> None:
    with pytest.raises(ContainerNotFound):
        bench().add("ContainerConstraints", {}, target)


def test_limits_need_settings() -> None:
    with pytest.raises(InvalidMessage, match="Settings: is missing"):
        bench().add("ContainerConstraints", None, ID)


# The limit of all pods


@pytest.mark.parametrize("settings", [None, "not looked at", 5])
def test_the_limit_of_all_pods_is_set_anew_without_looking_at_settings(settings: object) -> None:
    workbench = bench(strict=True)
    workbench.request("Update", "PodCgroupMemoryLimit", settings)
    assert workbench.host.refreshed == 1


@pytest.mark.parametrize("verb", ["Add", "", "Remove"])
def test_the_limit_of_all_pods_can_only_be_updated(verb: str) -> None:
    with pytest.raises(Refused, match="RequestType"):
        bench().request(verb, "PodCgroupMemoryLimit", {})


# Policy and fragments


def test_a_policy_comes_into_force_once() -> None:
    workbench = bench()
    message = {
        "EnforcerType": "scripted",
        "EncodedSecurityPolicy": POLICY,
        "EncodedUVMReference": "uvm",
        "EncodedUVMHashEnvelopeReference": "envelope",
    }
    workbench.request("Remove", "SecurityPolicy", message)
    assert workbench.gate.strict
    assert workbench.gate.security_context() == {
        "security-policy-base64": POLICY,
        "reference-info-base64": "uvm",
        "transparent-reference-info-base64": "envelope",
    }
    with pytest.raises(Refused, match="already been set"):
        workbench.add("SecurityPolicy", {})
    assert workbench.gate.inconsistent is None


def test_a_policy_is_for_the_vm() -> None:
    with pytest.raises(Refused, match="not supported for containers"):
        bench().add("SecurityPolicy", {}, ID)


def test_a_policy_has_the_vm_for_itself_while_it_is_set() -> None:
    workbench = bench()
    seen: list[tuple[str, bool]] = []

    class Looking(ScriptedEnforcer):
        def __init__(self, text: str) -> None:
            super().__init__(text)
            seen.extend((line.who, line.exclusive) for line in workbench.lock.table())

    workbench.gate._factories["scripted"] = Looking
    workbench.add("SecurityPolicy", {"EnforcerType": "scripted", "EncodedSecurityPolicy": POLICY})
    assert seen == [("Add SecurityPolicy policy", True)]


def test_a_refused_policy_marks_nothing() -> None:
    workbench = bench()
    with pytest.raises(Refused, match="Invalid policy for open-door enforcer"):
        workbench.add("SecurityPolicy", {"EnforcerType": "open_door", "EncodedSecurityPolicy": POLICY})
    assert workbench.gate.degraded is None
    workbench.add("SecurityPolicy", {})


def test_a_fragment_goes_to_the_enforcer_in_force() -> None:
    workbench = bench()
    text = base64.b64encode(b"cose").decode()
    workbench.add("SecurityPolicyFragment", {"Fragment": text})
    enforcer = workbench.be_strict()
    workbench.request("Update", "SecurityPolicyFragment", {"Fragment": text, "MediaType": ""})
    assert enforcer.fragments == [Fragment("did:x", "feed", "cose")]


def test_a_fragment_that_is_denied_leaves_the_vm_as_it_was() -> None:
    workbench = bench(strict=True)
    workbench.gate.close_door("cause")
    with pytest.raises(PolicyDenied, match="cause"):
        workbench.add("SecurityPolicyFragment", {"Fragment": ""})
    assert workbench.gate.inconsistent is None
