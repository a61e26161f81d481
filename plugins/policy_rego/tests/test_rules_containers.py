"""Containers and processes: what may run, what narrows, and why not."""

from __future__ import annotations

from typing import Any

import pytest
from policies import EXTERNAL, ID, caps, container, create, execute, policy, rule
from sessions import allow, deny, mounted, opened, started

MOUNT = create()["mounts"][0]
OPTIONS = ["nosuid", "noexec", "nodev"]


def test_the_container_that_the_policy_describes_is_created_once() -> None:
    session = mounted()
    result = allow(session, "create_container", create())
    assert result["env_list"] == ["PATH=/bin", "TOKEN=s3cret"]
    assert result["caps_list"] == caps("CAP_KILL")
    assert result["allow_stdio_access"] is True
    assert deny(session, "create_container", create()) == ["container already started"]


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({"argList": ["web"]}, ["invalid command"]),
        ({"argList": None}, ["invalid command"]),
        ({"workingDir": "/"}, ["invalid working directory"]),
        ({"envList": ["PATH=/bin", "EVIL=1", "X"]}, ["invalid env list", "invalid env list: EVIL,X"]),
        ({"noNewPrivileges": False}, ["invalid noNewPrivileges"]),
        ({"umask": "0000"}, ["invalid user"]),
        ({"user": {"id": "0", "name": "root"}}, ["invalid user"]),
        ({"groups": [{"id": "0", "name": "root"}]}, ["invalid user"]),
        ({"seccompProfileSHA256": "00"}, ["invalid seccomp"]),
        ({"privileged": True}, ["privileged escalation not allowed"]),
        ({"devices": [{"path": "/dev/mem"}]}, ["devices not supported"]),
        ({"capabilities": caps()}, ["capabilities don't match"]),
        ({"capabilities": caps("CAP_KILL", "CAP_BPF")}, ["capabilities don't match"]),
        ({"mounts": [{**MOUNT, "options": ["rw"]}]}, ["invalid mount list: /data"]),
        ({"mounts": [{**MOUNT, "options": None}]}, ["invalid mount list: /data"]),
        ({"mounts": [{**MOUNT, "source": "/etc"}]}, ["invalid mount list: /data"]),
        ({"mounts": [{**MOUNT, "type": "none"}]}, ["invalid mount list: /data"]),
        ({"mounts": [{**MOUNT, "destination": "/bin"}]}, ["invalid mount list: /bin"]),
    ],
)
def test_one_thing_changed_is_denied_and_named(changes: dict[str, Any], reasons: list[str]) -> None:
    session = mounted()
    denied = deny(session, "create_container", create(**changes))
    if "devices" in changes:
        # Capabilities are judged without devices, so nothing else is said.
        assert denied == reasons
    assert set(reasons) <= set(denied)
    assert set(denied) <= {*reasons, "capabilities don't match"}
    # What was denied left nothing behind.
    allow(session, "create_container", create())


def test_a_required_variable_that_is_missing_is_said() -> None:
    text = policy(container(env_rules=[rule("PATH=/bin", required=True)]))
    denied = deny(mounted(text), "create_container", create(envList=[]))
    assert denied == ["missing required environment variable"]


def test_dropping_keeps_what_the_policy_knows() -> None:
    session = mounted(policy(allow_environment_variable_dropping=True, allow_capability_dropping=True))
    asked = create(envList=["EVIL=1", "PATH=/bin"], capabilities=caps("CAP_KILL", "CAP_BPF"))
    result = allow(session, "create_container", asked)
    assert result["env_list"] == ["PATH=/bin"]
    assert result["caps_list"] == caps("CAP_KILL")


def test_dropping_needs_candidates_that_agree() -> None:
    one = container(env_rules=[rule("A=1")])
    two = container(env_rules=[rule("B=1")])
    session = mounted(policy(one, two, allow_environment_variable_dropping=True))
    deny(session, "create_container", create(envList=["A=1", "B=1"]))
    assert allow(session, "create_container", create(envList=["A=1"]))["env_list"] == ["A=1"]


def test_containers_that_differ_by_streams_or_capabilities_only_are_not_guessed() -> None:
    text = policy(container(), container(allow_stdio_access=False))
    assert deny(mounted(text), "create_container", create()) == [
        "containers only distinguishable by allow_stdio_access"
    ]
    one, two = container(capabilities=caps("CAP_A")), container(capabilities=caps("CAP_B"))
    session = mounted(policy(one, two, allow_capability_dropping=True))
    denied = deny(session, "create_container", create(capabilities=caps("CAP_A", "CAP_B")))
    assert "containers only distinguishable by capabilties" in denied


@pytest.mark.parametrize("elevated", [False, True])
def test_privilege_and_privileged_mounts_need_an_elevated_container(elevated: bool) -> None:
    text = policy(container(allow_elevated=elevated, capabilities=None))
    sys = {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*OPTIONS, "rw"]}
    kind = "privileged" if elevated else "unprivileged"
    names = policies_defaults(kind)
    asked = create(mounts=[sys], capabilities=names, privileged=elevated)
    session = mounted(text)
    if elevated:
        allow(session, "create_container", asked)
    else:
        assert "invalid mount list: /sys" in deny(session, "create_container", asked)
        allow(session, "create_container", create(mounts=[sys], capabilities=names, isSandboxContainer=True))


def policies_defaults(kind: str) -> dict[str, list[str]]:
    from uvmd_policy_rego import defaults

    names = defaults.PRIVILEGED_CAPABILITIES if kind == "privileged" else defaults.UNPRIVILEGED_CAPABILITIES
    found = caps(*names)
    return found | {"inheritable": names} if kind == "privileged" else found


def test_default_mounts_are_everybodys_also_those_that_came_later() -> None:
    session = mounted()
    hosts = {"destination": "/etc/hosts", "type": "bind", "source": "/pod/hosts", "options": ["bind"]}
    proc = {"destination": "/proc", "type": "proc", "source": "proc", "options": OPTIONS}
    asked = create(mounts=[proc, hosts])
    assert deny(session, "create_container", asked) == ["invalid mount list: /etc/hosts"]
    session.documents.extend_default_mounts([hosts])
    allow(session, "create_container", asked)


def test_only_listed_processes_are_executed_and_only_in_a_container_that_runs() -> None:
    assert "container not started" in deny(mounted(), "exec_in_container", execute())
    session = started()
    assert allow(session, "exec_in_container", execute())["env_list"] == ["PATH=/bin", "TOKEN=s3cret"]
    assert "invalid command" in deny(session, "exec_in_container", execute(argList=["web", "--port", "80"]))
    assert "invalid env list: EVIL" in deny(session, "exec_in_container", execute(envList=["EVIL=1"]))
    assert "invalid working directory" in deny(session, "exec_in_container", execute(workingDir="/"))
    assert "capabilities don't match" in deny(session, "exec_in_container", execute(capabilities=caps()))
    deny(session, "exec_in_container", execute(envList=None))
    allow(session, "exec_in_container", execute())


def test_processes_beside_containers_have_a_list_of_their_own() -> None:
    session = opened(policy(external_processes=[EXTERNAL]))
    ls = {"argList": ["ls"], "envList": ["A=1"], "workingDir": "/"}
    result = allow(session, "exec_external", ls)
    assert result == {"allowed": True, "env_list": ["A=1"], "allow_stdio_access": True}
    assert deny(session, "exec_external", {**ls, "argList": ["rm"]}) == ["invalid command"]
    assert deny(session, "exec_external", {**ls, "workingDir": "/x"}) == ["invalid working directory"]
    assert deny(session, "exec_external", {**ls, "envList": []}) == ["missing required environment variable"]
    assert deny(session, "exec_external", {**ls, "envList": ["A=1", "B=2"]}) == ["invalid env list: B"]
    both = opened(policy(external_processes=[EXTERNAL, {**EXTERNAL, "allow_stdio_access": False}]))
    assert deny(both, "exec_external", ls) == [
        "external processes only distinguishable by allow_stdio_access"
    ]


def test_signals_are_those_of_the_process_that_gets_them() -> None:
    session = started()
    init = {"containerID": ID, "signal": 15, "isInitProcess": True, "argList": None}
    other = {"containerID": ID, "signal": 2, "isInitProcess": False, "argList": ["sh"]}
    allow(session, "signal_container_process", init)
    allow(session, "signal_container_process", other)
    for wrong in ({**init, "signal": 9}, {**other, "signal": 15}, {**other, "argList": ["x"]}):
        assert deny(session, "signal_container_process", wrong) == [
            "target isn't allowed to receive the signal"
        ]
    stranger = {**init, "containerID": "c" * 64}
    assert "container not started" in deny(session, "signal_container_process", stranger)
    assert deny(session, "shutdown_container", {"containerID": "c" * 64}) == ["container not started"]
    allow(session, "shutdown_container", {"containerID": ID})
    deny(session, "signal_container_process", init)


def test_a_pattern_that_does_not_compile_matches_nothing_and_harms_nobody() -> None:
    text = policy(container(env_rules=[rule("A=(", "re2"), rule("A=\\u0041", "re2"), rule("B=1")]))
    session = mounted(text)
    assert "invalid env list: A" in deny(session, "create_container", create(envList=["A=(", "B=1"]))
    allow(session, "create_container", create(envList=["B=1"]))
