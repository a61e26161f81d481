"""Who a process is and what it may: user, groups, privileges, capabilities, seccomp, streams."""

from __future__ import annotations

from typing import Any

import pytest
from policies import SETS, caps, container, create, execute, policy
from sessions import allow, deny, mounted, started

from uvmd_policy_rego.defaults import PRIVILEGED_CAPABILITIES, UNPRIVILEGED_CAPABILITIES

ME, ROOT = {"id": "1000", "name": "me"}, {"id": "0", "name": "root"}
NOBODY = {"id": "7", "name": ""}


def named(pattern: str, strategy: str) -> dict[str, str]:
    return {"pattern": pattern, "strategy": strategy}


@pytest.mark.parametrize(
    ("pattern", "strategy", "user", "fine"),
    [
        ("", "any", ROOT, True),
        ("1000", "id", ME, True),
        ("1000", "id", ROOT, False),
        ("1000", "id", {"id": "01000", "name": "me"}, False),
        ("me", "name", ME, True),
        ("me", "name", {"id": "1000", "name": "men"}, False),
        ("m.", "re2", ME, True),
        ("m", "re2", ME, False),
        ("1000", "re2", ME, False),
        ("", "re2", NOBODY, True),
        ("", "name", NOBODY, True),
        ("me", "uid", ME, False),
    ],
)
def test_a_user_is_matched_by_the_rule_of_its_strategy(
    pattern: str, strategy: str, user: dict[str, str], fine: bool
) -> None:
    who = {"user_idname": named(pattern, strategy), "group_idnames": [named("", "any")], "umask": "0022"}
    session = mounted(policy(container(user=who)))
    if fine:
        allow(session, "create_container", create(user=user))
    else:
        assert "invalid user" in deny(session, "create_container", create(user=user))


@pytest.mark.parametrize(
    ("rules", "groups", "fine"),
    [
        ([named("5", "id"), named("wheel", "name")], [{"id": "5", "name": ""}], True),
        ([named("5", "id")], [{"id": "5", "name": ""}, ROOT], False),
        ([named("5", "id"), named("root", "name")], [{"id": "5", "name": ""}, ROOT], True),
        ([named("5", "id")], [], True),
        ([], [], True),
        ([], [ROOT], False),
    ],
)
def test_every_group_needs_a_rule_and_not_every_rule_a_group(
    rules: list[Any], groups: list[Any], fine: bool
) -> None:
    who = {"user_idname": named("", "any"), "group_idnames": rules, "umask": "0022"}
    session = mounted(policy(container(user=who)))
    if fine:
        allow(session, "create_container", create(groups=groups))
    else:
        assert "invalid user" in deny(session, "create_container", create(groups=groups))


def test_the_umask_is_compared_as_text() -> None:
    session = mounted()
    assert "invalid user" in deny(session, "create_container", create(umask="022"))
    allow(session, "create_container", create(umask="0022"))


def test_an_exec_is_the_user_of_the_container() -> None:
    session = started()
    # Hosts know these two from every denial of an exec.
    assert "invalid user" in deny(session, "exec_in_container", execute(user=ROOT))
    allow(session, "exec_in_container", execute())


@pytest.mark.parametrize(
    ("pinned", "asked", "fine"),
    [(True, True, True), (True, False, False), (False, True, True), (False, False, True)],
)
def test_no_new_privileges_binds_where_the_policy_says_so(pinned: bool, asked: bool, fine: bool) -> None:
    session = mounted(policy(container(no_new_privileges=pinned)))
    if fine:
        allow(session, "create_container", create(noNewPrivileges=asked))
        allow(session, "exec_in_container", execute(noNewPrivileges=asked))
        if pinned:
            deny(session, "exec_in_container", execute(noNewPrivileges=False))
    else:
        said = deny(session, "create_container", create(noNewPrivileges=asked))
        assert "invalid noNewPrivileges" in said


@pytest.mark.parametrize("elevated", [True, False])
def test_privileged_needs_an_elevated_container(elevated: bool) -> None:
    session = mounted(policy(container(allow_elevated=elevated)))
    if elevated:
        allow(session, "create_container", create(privileged=True))
    else:
        said = deny(session, "create_container", create(privileged=True))
        assert "privileged escalation not allowed" in said
        allow(session, "create_container", create(privileged=False))


def test_a_seccomp_profile_is_pinned_by_its_hash() -> None:
    session = mounted(policy(container(seccomp_profile_sha256="ab")))
    for other in ("", "AB", "cd"):
        assert "invalid seccomp" in deny(session, "create_container", create(seccompProfileSHA256=other))
    allow(session, "create_container", create(seccompProfileSHA256="ab"))


# Capabilities


def unequal(name: str, names: list[str]) -> dict[str, list[str]]:
    return {**caps("CAP_A", "CAP_B"), name: names}


@pytest.mark.parametrize("name", SETS)
def test_each_of_the_five_sets_must_be_the_same(name: str) -> None:
    session = mounted(policy(container(capabilities=caps("CAP_A", "CAP_B"))))
    for names in (["CAP_A"], ["CAP_A", "CAP_B", "CAP_C"], ["CAP_A", "CAP_C"], ["CAP_A", "CAP_A"]):
        said = deny(session, "create_container", create(capabilities=unequal(name, names)))
        assert said == ["capabilities don't match"]
    allow(session, "create_container", create(capabilities=caps("CAP_B", "CAP_A")))


def test_none_at_all_are_a_list_as_well() -> None:
    session = mounted(policy(container(capabilities=caps())))
    assert deny(session, "create_container", create(capabilities=caps("CAP_A"))) == [
        "capabilities don't match"
    ]
    allow(session, "create_container", create(capabilities=caps()))


def privileged() -> dict[str, list[str]]:
    return {**caps(*PRIVILEGED_CAPABILITIES), "inheritable": list(PRIVILEGED_CAPABILITIES)}


@pytest.mark.parametrize(
    ("elevated", "asks_privileged", "needed"),
    [(True, True, "privileged"), (True, False, "unprivileged"), (False, False, "unprivileged")],
)
def test_without_a_list_the_defaults_hold(elevated: bool, asks_privileged: bool, needed: str) -> None:
    sets = {"privileged": privileged(), "unprivileged": caps(*UNPRIVILEGED_CAPABILITIES)}
    session = mounted(policy(container(capabilities=None, allow_elevated=elevated)))
    other = next(value for name, value in sets.items() if name != needed)
    said = deny(session, "create_container", create(capabilities=other, privileged=asks_privileged))
    assert said == ["capabilities don't match"]
    allow(session, "create_container", create(capabilities=sets[needed], privileged=asks_privileged))
    # An exec is held against what the container was created as.
    allow(session, "exec_in_container", execute(capabilities=sets[needed]))
    assert "capabilities don't match" in deny(session, "exec_in_container", execute(capabilities=other))


def test_dropping_takes_the_surplus_away_but_excuses_nothing_that_is_missing() -> None:
    text = policy(container(capabilities=caps("CAP_A", "CAP_B")), allow_capability_dropping=True)
    session = mounted(text)
    said = deny(session, "create_container", create(capabilities=caps("CAP_A", "CAP_Z")))
    assert said == ["capabilities don't match"]
    kept = allow(session, "create_container", create(capabilities=caps("CAP_Z", "CAP_B", "CAP_A")))
    assert kept["caps_list"] == caps("CAP_A", "CAP_B")
    kept = allow(session, "exec_in_container", execute(capabilities=caps("CAP_B", "CAP_A", "CAP_Y")))
    assert kept["caps_list"] == caps("CAP_A", "CAP_B")


def test_an_older_framework_knows_no_dropping_of_capabilities() -> None:
    old = {
        key: value
        for key, value in container(no_new_privileges=True).items()
        if key not in ("capabilities", "seccomp_profile_sha256")
    }
    more = caps(*UNPRIVILEGED_CAPABILITIES, "CAP_BPF")
    for framework, fine in (("0.2.1", False), ("0.2.2", True)):
        one = old if framework == "0.2.1" else {**old, "capabilities": caps(*UNPRIVILEGED_CAPABILITIES)}
        session = mounted(policy(one, framework=framework, allow_capability_dropping=True))
        assert session.enforce("create_container", create(capabilities=more)).allowed is fine


def test_a_list_with_a_duplicate_matches_nothing_once_dropping_is_on() -> None:
    twice = container(capabilities=caps("CAP_A", "CAP_A"))
    allow(mounted(policy(twice)), "create_container", create(capabilities=caps("CAP_A", "CAP_A")))
    session = mounted(policy(twice, allow_capability_dropping=True))
    deny(session, "create_container", create(capabilities=caps("CAP_A", "CAP_A")))


# Streams


@pytest.mark.parametrize("stdio", [True, False])
def test_streams_are_the_containers_and_a_missing_word_is_a_no(stdio: bool) -> None:
    result = allow(mounted(policy(container(allow_stdio_access=stdio))), "create_container", create())
    assert result["allow_stdio_access"] is stdio
    silent = container()
    del silent["allow_stdio_access"]
    assert deny(mounted(policy(silent)), "create_container", create()) == []
