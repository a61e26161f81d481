"""Older, newer and odd policies: what their versions make of them."""

from __future__ import annotations

import json
from typing import Any

import policies
import pytest
from policies import ALIASES, ID, REASON, container, create, policy
from sessions import allow, deny, mounted, opened

from uvmd_policy_rego.engine import EngineError
from uvmd_policy_rego.replay import replay
from uvmd_policy_rego.session import Session


def refused(text: str, point: str = "get_properties", input: dict[str, Any] | None = None) -> str:
    answer = opened(text).enforce(point, input or {})
    assert not answer.allowed
    found: str = answer.decision.get("policyError", "")
    return found


def test_a_policy_without_an_api_version_denies_what_it_defines() -> None:
    assert (
        refused('package policy\nget_properties := {"allowed": true}\n')
        == "policy does not define api_version"
    )
    assert refused("package other\n") == "policy does not define api_version"


def test_the_older_name_of_the_version_is_as_good_but_two_must_agree() -> None:
    text = 'package policy\napi_svn := "0.12.0"\nget_properties := {"allowed": true}\n'
    allow(opened(text), "get_properties", {})
    assert "eval_conflict_error" in refused(text + 'api_version := "0.11.0"\n')


def test_points_that_nobody_knows_do_not_exist() -> None:
    assert refused(policy(), "no_such_point") == "enforcement point rule no_such_point does not exist"
    assert refused(policy(), "x.y") == "enforcement point rule x.y does not exist"
    assert refused(policy(api="latest")) == "enforcement point rule get_properties does not exist"


def test_a_policy_must_define_the_points_of_its_time_and_has_defaults_for_later_ones() -> None:
    text = 'package policy\napi_version := "0.10.0"\nframework_version := "0.3.0"\n'
    assert refused(text, "mount_device") == "rule for mount_device is missing from policy"
    assert opened(text).enforce("host_network", {}).decision["reason"]
    allow(opened(text.replace("0.10.0", "0.6.0")), "get_properties", {})


def test_writable_disks_of_older_policies_get_the_rules_of_the_framework() -> None:
    text = 'package policy\napi_version := "0.10.0"\nframework_version := "0.3.0"\n' + REASON
    session = opened(text)
    disk = {
        "target": f"/run/gcs/c/{ID}",
        "encrypted": True,
        "ensureFilesystem": True,
        "filesystem": "xfs",
        "mountPathRegex": "/run/gcs/c/[0-9a-f]{64}",
    }
    allow(session, "rw_mount_device", disk)
    assert deny(session, "rw_mount_device", disk) == ["device already mounted at path"]


def test_answers_of_a_policy_are_completed_by_the_defaults_of_the_point() -> None:
    text = 'package policy\napi_version := "0.12.0"\ncreate_container := {"allowed": true}\n'
    result = allow(opened(text), "create_container", create())
    assert result == {"allowed": True, "env_list": None, "allow_stdio_access": False}


@pytest.mark.parametrize("value", ['{"allowed": 1}', '{"allowed": null}', "{}", '{"a": 1}', "[]", "true"])
def test_an_answer_that_is_no_yes_is_a_no(value: str) -> None:
    refused(f'package policy\napi_version := "0.12.0"\ncreate_container := {value}\n', "create_container")


def test_containers_of_a_framework_from_the_future_are_none() -> None:
    session = opened(policy(framework="0.6.0"))
    allow(session, "mount_device", policies.device("base", 0))  # layers are read whatever the version
    allow(session, "mount_device", policies.device("top", 1))
    said = deny(session, "mount_overlay", policies.overlay(1, 0))
    ahead = "framework_version is ahead of the current version: 0.6.0 is greater than 0.5.0"
    assert said == [ahead, "no matching containers for overlay"]


def test_a_missing_framework_version_is_said() -> None:
    text = f'package policy\napi_version := "0.12.0"\n{ALIASES}{REASON}'
    assert "framework_version is missing. Current version: 0.5.0" in deny(opened(text), "get_properties", {})


def old_container() -> dict[str, Any]:
    newer = ("user", "capabilities", "seccomp_profile_sha256", "no_new_privileges")
    return {key: value for key, value in container(id="x").items() if key not in newer}


def test_containers_from_the_first_framework_are_brought_up_to_date() -> None:
    session = mounted(policy(old_container(), framework="0.1.0"))
    from uvmd_policy_rego import defaults

    names = policies.caps(*defaults.UNPRIVILEGED_CAPABILITIES)
    allow(session, "create_container", create(capabilities=names, noNewPrivileges=False))
    kill = {"containerID": ID, "signal": 9, "isInitProcess": True, "argList": []}
    allow(session, "signal_container_process", kill)


def test_an_old_container_that_lacks_something_vanishes() -> None:
    broken = old_container()
    del broken["exec_processes"]
    session = opened(policy(broken, framework="0.1.0"))
    allow(session, "mount_device", policies.device("base", 0))
    allow(session, "mount_device", policies.device("top", 1))
    assert deny(session, "mount_overlay", policies.overlay(1, 0)) == ["no matching containers for overlay"]


def test_a_policy_that_computes_what_it_declares_is_asked_each_time() -> None:
    computed = '"layers": ["base", object.get(input, "nothing", "top")]'
    session = mounted(policy().replace('"layers": ["base", "top"]', computed))
    assert not session.documents.static
    allow(session, "create_container", create())
    assert opened(policy()).documents.static


def test_policies_write_metadata_of_their_own() -> None:
    text = """package policy
api_version := "0.12.0"
mount_device := {"allowed": true, "metadata": [{"name": "mine", "action": "add", "key": "k", "value": 1}]}
unmount_device := {"allowed": true} if data.metadata.mine.k == 1
"""
    session = opened(text)
    assert not session.enforce("unmount_device", {}).allowed
    allow(session, "mount_device", {})
    allow(session, "unmount_device", {})
    twice = session.enforce("mount_device", {})
    assert "key mine[k] already exists" in twice.decision["policyError"]


def test_the_language_before_rego_v1_is_read_too() -> None:
    text = 'package policy\napi_version := "0.12.0"\nget_properties := {"allowed": true} { input.x == 1 }\n'
    allow(opened(text), "get_properties", {"x": 1})


@pytest.mark.parametrize("text", ["", "no rego", "package policy\nx := {", '{"containers": 1'])
def test_what_does_not_parse_is_an_error(text: str) -> None:
    with pytest.raises(EngineError):
        Session(text)
    assert "error" in replay({"name": "n", "policy": text, "calls": []})


def test_policies_from_before_rego_mean_what_they_meant() -> None:
    listed = {"length": 1, "elements": {"0": "base"}}
    envs = {"length": 1, "elements": {"0": {"strategy": "re2", "rule": "A=.*"}}}
    old = {"command": listed, "env_rules": envs, "layers": listed, "working_dir": "/", "mounts": {}}
    text = json.dumps({"allow_all": False, "containers": {"length": 1, "elements": {"0": old}}})
    calls = [
        {"kind": "enforce", "point": "mount_device", "input": policies.device("base", 0)},
        {"kind": "enforce", "point": "mount_overlay", "input": policies.overlay(0)},
        {"kind": "enforce", "point": "get_properties", "input": {}},
        {"kind": "enforce", "point": "mount_device", "input": policies.device("top", 1)},
    ]
    answer = replay({"name": "n", "policy": text, "calls": calls})
    assert [call["allowed"] for call in answer["calls"]] == [True, True, True, False]
    whole = replay({"name": "n", "policy": '{"allow_all": true}', "calls": calls})
    assert all(call["allowed"] for call in whole["calls"])
    broken = text.replace('"0": {"command"', '"1": {"command"')
    assert replay({"name": "n", "policy": broken, "calls": []})["error"] == 'element with index "0" not found'
