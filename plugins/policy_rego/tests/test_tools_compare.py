"""What is allowed now, and what no longer, in words."""

from __future__ import annotations

from typing import Any

import policies
import pytest
from test_tools_check import HASHES, container

from uvmd_policy_rego.tools.compare import Comparison, as_json, as_text, compare
from uvmd_policy_rego.tools.reading import read_document

IMPORT = {"issuer": "i", "feed": "f", "minimum_svn": "2", "includes": ["containers"]}


def compared(old: str, new: str) -> Comparison:
    return compare(read_document(old), read_document(new))


def changes(old: str, new: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"more": [], "less": []}
    for one in compared(old, new).changes:
        found.setdefault(one.allows, []).append(f"{one.where}: {one.text}")
    return found


def of_container(before: dict[str, Any], after: dict[str, Any]) -> dict[str, list[str]]:
    old, new = (policies.policy(container(name="web", **one)) for one in (before, after))
    return changes(old, new)


def test_the_same_policy_in_other_words_is_no_difference() -> None:
    old = policies.policy(container(command=["a"]), container(command=["b"]))
    new = "# a remark\n" + policies.policy(container(command=["b"], name="b"), container(command=["a"]))
    found = compared(old, new.replace("# a remark\n", ""))
    assert (found.changes, found.status) == ([], 0)
    assert as_text(found) == "Both allow the same."


@pytest.mark.parametrize(
    ("before", "after", "more", "less"),
    [
        ({}, {"command": ["x"]}, ["may run `x`"], ["may no longer run `web --port 80`"]),
        ({}, {"working_dir": "/"}, ["may run in `/`"], ["may no longer run in `/srv`"]),
        (
            {},
            {"layers": [HASHES[0], "c" * 64]},
            ["may have other content: 2 layer(s), of which 1 as before"],
            ["may no longer have the content that it had"],
        ),
        ({}, {"allow_elevated": True}, ["may run privileged"], []),
        ({}, {"allow_stdio_access": False}, [], ["may no longer have its input and output open to the host"]),
        (
            {},
            {"no_new_privileges": False},
            ["may run without no_new_privileges: its programs may gain rights"],
            [],
        ),
        (
            {"signals": [9]},
            {"signals": [9, 15]},
            ["the host may send SIGTERM (15) to its first process"],
            [],
        ),
        (
            {},
            {
                "exec_processes": [
                    {"command": ["top", "-b"], "signals": []},
                    {"command": ["ls"], "signals": []},
                ]
            },
            ["the host may run `ls` in it"],
            ["the host may no longer send SIGKILL (9) to `top -b` in it"],
        ),
        ({}, {"exec_processes": []}, [], ["the host may no longer run `top -b` in it"]),
        (
            {"env_rules": [policies.rule("A=1")]},
            {"env_rules": [policies.rule("A=1", required=True)]},
            [],
            ["may no longer run without the variable A=1"],
        ),
        (
            {"env_rules": [policies.rule("A=1")]},
            {"env_rules": [policies.rule("A=.+", "re2")]},
            ["may have the variable A=.+ (a pattern)"],
            [],
        ),
        (
            {"env_rules": [policies.rule("A=.+", "re2", required=True)]},
            {"env_rules": [policies.rule("A=1")]},
            ["may run without the variable A=.+ (a pattern)"],
            ["may no longer have the variable A=.+ (a pattern)"],
        ),
        (
            {"capabilities": None},
            {"capabilities": {name: [] for name in policies.SETS}},
            ["may run with these capabilities: none at all"],
            ["may no longer run with these: the usual 14 of an unprivileged container"],
        ),
    ],
)
def test_a_change_is_told_in_the_direction_that_it_has(
    before: dict[str, Any], after: dict[str, Any], more: list[str], less: list[str]
) -> None:
    found = of_container(before, after)
    assert found["more"] == [f"web: {one}" for one in more]
    assert found["less"] == [f"web: {one}" for one in less]


def test_users_become_more_or_fewer() -> None:
    any_user = {"pattern": "", "strategy": "any"}
    user = policies.container()["user"]
    found = of_container({"user": user}, {"user": user | {"user_idname": any_user}})
    assert found == {"more": ["web: may run as any user"], "less": []}
    found = of_container({"user": user | {"user_idname": any_user}}, {"user": user})
    assert found == {"more": [], "less": ["web: may no longer run as any user"]}


def test_containers_are_known_again_wherever_they_stand() -> None:
    one, other = container(command=["a", "1"], layers=["c" * 64]), container(command=["b"])
    old = policies.policy(one, other)
    new = policies.policy(other | {"allow_elevated": True}, one | {"signals": []}, container(name="x"))
    found = changes(old, new)
    assert found["more"] == [
        "x: may run: `web --port 80`, a container that was not there",
        "container 1: may run privileged",
    ]
    assert found["less"] == ["container 2: the host may no longer send SIGTERM (15) to its first process"]


def test_switches_and_points_are_compared() -> None:
    old = policies.policy(container(), allow_dump_stacks=True)
    new = policies.policy(container(), allow_host_network=True).replace(
        "data.framework.create_container", '{"allowed": true}'
    )
    found = changes(old, new)
    assert "create_container: was decided by the common rules, is always allowed" in found["more"]
    assert any(one.startswith("allow_host_network: ") for one in found["more"])
    assert any(one.startswith("allow_dump_stacks: no longer: ") for one in found["less"])


def test_imports_are_compared_by_who_signs() -> None:
    def text(*imports: dict[str, Any]) -> str:
        return policies.policy(container(), fragments=list(imports))

    found = changes(text(IMPORT), text(IMPORT | {"minimum_svn": "1", "includes": ["fragments"]}))
    assert found["more"] == [
        "signer of f: the SVN may be as old as 1, it was 2",
        "signer of f: may add further signers and fragments",
    ]
    assert found["less"] == ["signer of f: may no longer add containers"]
    found = changes(text(IMPORT), text(IMPORT, IMPORT | {"feed": "g"}))
    assert found == {"more": ["signer of g: i may add containers (SVN 2 or later)"], "less": []}
    found = changes(text(IMPORT), text(IMPORT | {"required_receipts": ["*"], "minimum_svn": "1.0.0"}))
    assert found["less"] == ["signer of f: needs a receipt from *"]
    assert "cannot be compared" in found["other"][0]


def test_processes_lists_and_rules_are_compared_as_wholes() -> None:
    lists = {
        "external_processes": [policies.EXTERNAL],
        "platform_rules": [{"env_rules": [policies.rule("A=1")], "mounts": []}],
        "transparency_trust_lists": [
            {"issuer": "i", "subject": "s", "minimum_svn": "1", "allowed_ledgers": ["l"]}
        ],
    }
    found = changes(policies.policy(container()), policies.policy(container(), **lists))
    assert len(found["more"]) == 3
    assert found["less"] == []
    assert len(changes(policies.policy(container(), **lists), policies.policy(container()))["less"]) == 3


def test_a_policy_that_denies_everything_has_lost_it_all() -> None:
    text = policies.policy(container(name="web"))
    dead = text.replace('api_version := "0.12.0"\n', "")
    assert "web: may no longer run: `web --port 80`" in changes(text, dead)["less"]
    assert changes(text, dead)["more"] == []


def test_rules_of_their_own_are_compared_as_texts() -> None:
    text = policies.policy(container()).replace(
        "get_properties := data.framework.get_properties", 'get_properties := {"allowed": input.x == limit}'
    )
    found = compared(text + "limit := 1\n", text + "limit := 1\n")
    assert found.status == 0
    found = compared(text + "limit := 1\n", text + "limit := 2\n")
    assert found.status == 2
    assert "limit is a rule of the policies' own" in as_text(found)
    assert as_json(found)[0]["allows"] == "unknown"


def test_a_policy_is_not_compared_with_a_fragment() -> None:
    assert compared(policies.policy(container()), "package a\nsvn := 1\n").status == 2
