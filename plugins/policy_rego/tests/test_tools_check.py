"""Lint: each finding with the policy that has it, its line, and none where nothing is wrong."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import configurations
import policies
import pytest

from uvmd_policy_rego.session import Session
from uvmd_policy_rego.tools.check import check
from uvmd_policy_rego.tools.findings import Finding
from uvmd_policy_rego.tools.generate import generate
from uvmd_policy_rego.tools.pattern_words import matches, remarks_on, remarks_on_env, sample

HASHES = ["a" * 64, "b" * 64]


def container(**changes: Any) -> dict[str, Any]:
    """A container about which there is nothing to say."""
    plain = {
        "layers": HASHES,
        "exec_processes": [{"command": ["top", "-b"], "signals": [9]}],
        "mounts": [],
        "env_rules": [policies.rule("PATH=/bin")],
    }
    return policies.container(**plain) | changes


def found(text: str, code: str) -> list[Finding]:
    return [one for one in check(text) if one.code == code]


def codes(text: str) -> set[str]:
    return {one.code for one in check(text)}


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert check(policies.policy(container())) == []


def test_a_text_that_does_not_parse_is_named_with_its_line() -> None:
    (one,) = check("package policy\n\nallow := [1,\n  two three\n]\n")
    assert (one.level, one.code, one.line) == ("error", "no-policy", 4)


def test_a_list_that_is_none_is_named_with_its_line() -> None:
    (one,) = check('package policy\napi_version := "0.12.0"\ncontainers := 5\n')
    assert (one.code, one.line) == ("no-policy", 3)
    assert "containers is no list" in one.text


def test_a_policy_may_be_given_in_base64() -> None:
    text = policies.policy(container(), allow_dump_stacks=True)
    assert check(base64.encodebytes(text.encode())) == check(text)


@pytest.mark.parametrize(
    ("changes", "code", "level"),
    [
        ({"comand": ["a"]}, "unknown-field", "error"),
        ({"colour": "red"}, "unknown-field", "warning"),
        ({"layers": ["A" * 64]}, "never", "error"),
        ({"layers": []}, "no-layers", "warning"),
        ({"command": []}, "never", "error"),
        ({"command": "top"}, "wrong-type", "error"),
        ({"working_dir": "srv"}, "never", "error"),
        ({"seccomp_profile_sha256": "ABC"}, "never", "error"),
        ({"signals": ["SIGTERM"]}, "never", "error"),
        ({"allow_elevated": True}, "elevated", "warning"),
        ({"no_new_privileges": False}, "new-privileges", "note"),
        ({"capabilities": policies.caps("CAP_SYS_ADMIN")}, "strong-capability", "warning"),
        ({"capabilities": policies.caps("SYS_TIME")}, "never", "error"),
        ({"capabilities": policies.caps("CAP_KILL", "CAP_KILL")}, "duplicate", "note"),
        ({"capabilities": {"bounding": []}}, "never", "error"),
        ({"exec_processes": [{"command": ["/bin/bash"], "signals": []}]}, "exec-shell", "warning"),
        ({"exec_processes": [{"signals": []}]}, "never", "error"),
        ({"env_rules": [policies.rule("A=1", "glob")]}, "strategy", "error"),
        ({"env_rules": [policies.rule("A=.*")]}, "not-a-pattern", "warning"),
        ({"env_rules": [policies.rule("A=(", "re2")]}, "pattern-invalid", "error"),
        ({"env_rules": [policies.rule("A=1|B=2", "re2")]}, "pattern-alternation", "warning"),
        ({"env_rules": [policies.rule("A=.*\\$", "re2")]}, "pattern-open-end", "warning"),
        ({"env_rules": [policies.rule("H=a.example", "re2")]}, "pattern-dot", "warning"),
        ({"env_rules": [policies.rule("(?m)A=b", "re2")]}, "pattern-lines", "warning"),
        ({"env_rules": [policies.rule("(?i)A=b", "re2")]}, "pattern-case", "note"),
        ({"env_rules": [policies.rule(".+=.+", "re2")]}, "env-any", "warning"),
        ({"env_rules": [policies.rule("LD_.+=.+", "re2")]}, "env-dangerous", "warning"),
        ({"env_rules": [policies.rule("A")]}, "env-name", "warning"),
        ({"env_rules": [{"pattern": "A=1"}]}, "no-rule", "error"),
        ({"env_rules": [policies.rule("A=1") | {"required": "false"}]}, "required-value", "warning"),
        ({"env_rules": [policies.rule("A=1"), policies.rule("A=1")]}, "duplicate", "note"),
    ],
)
def test_a_container_is_held_against_what_requests_can_be(
    changes: dict[str, Any], code: str, level: str
) -> None:
    text = policies.policy(container(**changes))
    (one, *_) = found(text, code)
    assert one.level == level
    assert one.where.startswith("containers[0]")


@pytest.mark.parametrize(
    ("user", "code"),
    [
        ({"umask": "22"}, "never"),
        ({"group_idnames": []}, "never"),
        ({"user_idname": {"pattern": "root", "strategy": "id"}}, "never"),
        ({"user_idname": {"pattern": "", "strategy": "any"}}, "any-user"),
        ({"user_idname": {"pattern": "x", "strategy": "any"}}, "unused"),
        ({"user_idname": {"pattern": "r.*", "strategy": "re2"}}, "matches-root"),
        ({"user_idname": {"pattern": "x", "strategy": "uid"}}, "strategy"),
        ({"user_idname": {"strategy": "any"}}, "never"),
        ({"shell": "/bin/sh"}, "unknown-field"),
    ],
)
def test_users_are_held_against_who_there_can_be(user: dict[str, Any], code: str) -> None:
    assert code in codes(policies.policy(container(user=policies.container()["user"] | user)))


@pytest.mark.parametrize(
    ("mount", "code"),
    [
        ({"source": "sandbox:///data/.+"}, "dot-dot"),
        ({"source": "sandbox:///data/(a|b"}, "pattern-invalid"),
        ({"source": "sandbox-tmp:///x"}, "never"),
        ({"source": "/tmp/.+"}, "not-a-pattern"),
        ({"destination": ""}, "never"),
        ({"readonly": True}, "unknown-field"),
    ],
)
def test_mounts_are_held_against_what_can_be_mounted(mount: dict[str, Any], code: str) -> None:
    plain = {"source": "sandbox:///data", "destination": "/data", "type": "bind", "options": ["rbind", "rw"]}
    assert check(policies.policy(container(mounts=[plain]))) == []
    assert code in codes(policies.policy(container(mounts=[plain | mount])))


@pytest.mark.parametrize(
    ("changes", "request_changes"),
    [
        ({"layers": ["A" * 64]}, {}),
        ({"command": "top"}, {"argList": ["top"]}),
        ({"seccomp_profile_sha256": "ABC"}, {"seccompProfileSHA256": "abc"}),
        ({"capabilities": {"bounding": []}}, {"capabilities": {name: [] for name in policies.SETS}}),
        ({"user": policies.container()["user"] | {"umask": "22"}}, {}),
        ({"user": policies.container()["user"] | {"group_idnames": []}}, {}),
        ({"env_rules": [policies.rule("A=1", "glob")]}, {"envList": ["A=1"]}),
        ({"env_rules": [policies.rule("A=(", "re2")]}, {"envList": ["A=("]}),
        ({"env_rules": [{"pattern": "A=1"}]}, {"envList": ["A=1"]}),
    ],
)
def test_what_is_said_never_to_run_never_runs(
    changes: dict[str, Any], request_changes: dict[str, Any]
) -> None:
    text = policies.policy(container(**changes))
    assert any(one.level == "error" for one in check(text))
    assert not runs(text, {"mounts": [], "envList": [], **request_changes})
    assert runs(policies.policy(container()), {"mounts": [], "envList": []})


def runs(text: str, changes: dict[str, Any]) -> bool:
    """Whether the container can be created, with its layers mounted as far as they can be."""
    session = Session(text)
    for number, layer in enumerate(HASHES):
        session.enforce("mount_device", policies.device(layer, number))
    session.enforce("mount_overlay", policies.overlay(1, 0))
    return session.enforce("create_container", policies.create(**changes)).allowed


def test_a_missing_field_is_an_error_and_old_documents_need_fewer() -> None:
    plain = container()
    del plain["user"]
    (one,) = found(policies.policy(plain), "missing-field")
    assert "can never run" in one.text
    assert found(policies.policy(plain, framework="0.2.0", api="0.10.0"), "missing-field") == []
    del plain["layers"]
    (one,) = found(policies.policy(plain, framework="0.2.0", api="0.10.0"), "missing-field")
    assert "drop the container" in one.text


def test_containers_that_only_stdio_tells_apart_are_an_error() -> None:
    both = policies.policy(container(), container(allow_stdio_access=False))
    assert [one.where for one in found(both, "ambiguous-stdio")] == ["containers[1]"]
    assert found(policies.policy(container(), container(name="x")), "duplicate")


def test_versions_are_held_against_those_of_the_rules() -> None:
    text = policies.policy(container())
    assert found(text.replace('api_version := "0.12.0"\n', ""), "api-version-missing")
    assert found(text.replace('framework_version := "0.5.0"\n', ""), "framework-version-missing")
    assert found(text.replace('"0.5.0"', '"0.6.0"'), "version-ahead")[0].level == "error"
    assert found(text.replace('"0.12.0"', '"0.13.0"'), "version-ahead")[0].level == "warning"
    assert found(text.replace('"0.12.0"', '"twelve"'), "version-invalid")
    assert found(text.replace("api_version", "api_svn"), "old-name")


def test_a_point_of_the_declared_api_needs_a_rule() -> None:
    text = policies.policy(container(), api="0.10.0")
    missing = text.replace("scratch_mount := data.framework.scratch_mount\n", "", 1)
    assert [one.where for one in found(missing, "rule-missing")] == ["scratch_mount"]
    # What came with 0.11.0 has the framework's answer there.
    older = text.replace("rw_mount_device := data.framework.rw_mount_device\n", "")
    assert check(older) == []
    assert found(policies.policy(container(), api="0.2.0"), "default-allowed") == []
    rule = "exec_external := data.framework.exec_external\n"
    early = policies.policy(container(), api="0.2.0").replace(rule, "")
    assert found(early, "default-allowed")[0].level == "warning"


def test_answers_that_are_always_yes_or_misdirected_are_told() -> None:
    text = policies.policy(container())
    open_ = text.replace("data.framework.create_container", '{"allowed": true}')
    assert found(open_, "always-allowed")[0].level == "warning"
    wrong = text.replace("data.framework.mount_device", "data.framework.unmount_device", 1)
    assert found(wrong, "wrong-rule")
    named = text.replace("mount_cims", "") + "mount_cams := data.framework.mount_cams\n"
    assert found(named, "unknown-point")


def test_names_that_nobody_knows_are_told_with_their_line() -> None:
    text = policies.policy(container()) + "allow_dump_stack := true\nhelper := 3\n"
    close, far = found(text, "unknown-name")
    assert "did you mean allow_dump_stacks?" in close.text
    assert (far.level, far.line) == ("note", close.line + 1)
    assert found(policies.policy(container(), more='api_version := "0.10.0"\n'), "duplicate-name")


def test_letters_that_look_like_others_are_told() -> None:
    cyrillic = policies.policy(container(command=["/bin/b\u0430sh"]))
    (one,) = found(cyrillic, "look-alike")
    assert "CYRILLIC SMALL LETTER A" in one.text
    assert found(policies.policy(container(working_dir="/srv\u2066")), "hidden-character")
    assert check(policies.policy(container(command=["sh", "-c", "echo a\n\techo b"]))) == []


def test_a_pattern_whose_shortest_text_is_endless_has_no_example() -> None:
    assert sample("(((a{1000}){1000}){1000}){1000}") is None


def test_switches_say_what_they_give_away() -> None:
    text = policies.policy(container(), allow_dump_stacks=True, allow_unencrypted_scratch=1)
    assert {one.where for one in found(text, "switch")} == {"allow_dump_stacks", "allow_unencrypted_scratch"}
    assert [one.where for one in found(text, "switch-value")] == ["allow_unencrypted_scratch"]


def test_what_a_policy_computes_is_said_to_be_unknown() -> None:
    text = policies.policy(container()).replace(
        "get_properties := data.framework.get_properties", 'get_properties := {"allowed": input.x == 1}'
    )
    (one,) = found(text, "computed")
    assert "get_properties is decided by a rule of the policy's own" in one.text


def test_what_an_older_document_leaves_open_is_said() -> None:
    old = policies.policy(container(), framework="0.2.1", api="0.10.0")
    (one,) = found(old, "older-document")
    assert "usual capabilities" in one.text
    assert "SIGKILL and SIGTERM" in one.text
    assert "any user" not in one.text
    imported = {"issuer": "i", "feed": "f", "minimum_svn": "1", "includes": ["external_processes"]}
    old = policies.policy(container(), framework="0.4.1", api="0.10.0", fragments=[imported])
    assert found(old, "processes-missing")
    assert found(old, "older-document") == []


def test_imports_are_held_against_what_a_fragment_can_be() -> None:
    def imported(**changes: Any) -> dict[str, Any]:
        return {"issuer": "i", "feed": "f", "minimum_svn": "1", "includes": ["containers"]} | changes

    def text(*fragments: dict[str, Any]) -> str:
        return policies.policy(container(), fragments=list(fragments))

    assert check(text(imported())) == []
    assert found(text(imported(includes=["container"])), "unknown-include")
    assert found(text(imported(includes=["namespace"])), "include-namespace")
    assert found(text(imported(includes=["fragments"])), "include-fragments")
    assert found(text(imported(minimum_svn="one")), "svn-invalid")
    assert found(text(imported(minimum_svn="1.0.0")), "svn-version")
    assert found(text(imported(minimum_svn=0)), "svn-lowest")
    assert found(text(imported(), imported(includes=["fragments"])), "conflict")
    assert found(text(imported(), imported()), "duplicate")
    assert found(text(imported(svn=1)), "unknown-field")
    missing = imported()
    del missing["feed"]
    assert found(text(missing), "missing-field")


def test_fragments_are_checked_as_fragments() -> None:
    text = 'package infra\nsvn := "1"\nframework_version := "0.5.0"\n'
    text += f"containers := {json.dumps([container()])}\n"
    assert check(text) == []
    assert found("\n" + text, "package-line")
    assert found(text.replace('svn := "1"\n', ""), "svn-missing")
    assert found(text + "allow_dump_stacks := true\n", "unused")
    assert check(text.replace('["web", "--port", "80"]', 'parameter("command")')) == []


def test_legacy_json_is_said_to_be_that() -> None:
    text = json.dumps({"allow_all": False, "containers": {"length": 0, "elements": {}}})
    assert found(text, "legacy-json")
    assert codes('{"allow_all": 1, "containers": {"elements": {"1": {}}}}') == {"no-policy"}
    assert found(policies.policy(container()) + "x { input.y }\n", "rego-v0")


def test_lines_are_those_of_the_parts(tmp_path: Path) -> None:
    text = configurations.WEB.replace("TOKEN=.+", "A=1|B=2").replace("sandbox:///data/.+", "/a/.+")
    policy = generate(configurations.write(tmp_path, text), pause=False).measured.text
    lines = policy.split("\n")
    for code, part in (("pattern-alternation", '"env_rules"'), ("not-a-pattern", '"mounts"')):
        (one,) = found(policy, code)
        assert part in lines[one.line - 1]


def test_a_text_given_as_an_example_is_matched_by_the_rules() -> None:
    patterns = (
        "A=1|B=2", "A=.*\\$", "H=a.example", "(?m)A=b", "(?i)a=B", ".+=.+", "LD_.+=.+", "[A-z]+=x",
        "x|^y$|z", "P(A|B)TH=.*", "(?i)(FABRIC)_.+=.+",
    )  # fmt: skip
    for pattern in patterns:
        for remark in (*remarks_on(pattern), *remarks_on_env(pattern)):
            assert not remark.example or matches(pattern, remark.example), (pattern, remark)
        text = sample(pattern)
        assert text is not None
        assert matches(pattern, text)
