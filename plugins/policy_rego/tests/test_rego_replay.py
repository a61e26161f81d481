"""Replay answers for every enforcement point, and for lines that are no sessions."""

from __future__ import annotations

import json
from typing import Any

import policies
import pytest
from policies import EXTERNAL, ID, create, device, execute, overlay, policy

from uvmd.api.names import POINTS
from uvmd_policy_rego.replay import replay, replay_line, replay_lines
from uvmd_policy_rego.session import Session

RW = {
    "target": f"/run/gcs/c/{ID}",
    "encrypted": True,
    "ensureFilesystem": True,
    "filesystem": "ext4",
    "mountPathRegex": "/run/gcs/c/[0-9a-fA-F]{64}",
}
PLAN9 = {"rootPrefix": "/run/gcs/c", "mountPathPrefix": "/mounts/m[0-9]+"}
SHARE, SCRATCH = f"/run/gcs/c/{ID}/mounts/m1", f"/run/gcs/c/{ID}/scratch/{ID}"
FRAGMENT = {"issuer": "did:x", "feed": "f", "code": 'package x\nsvn := 1\nframework_version := "0.5.0"\n'}
IMPORT = {"issuer": "did:x", "feed": "f", "minimum_svn": 1, "includes": ["containers"]}
TRUST = {"issuer": "did:x", "subject": "s", "minimum_svn": 1, "allowed_ledgers": ["*"]}
FLAGS = ("properties_access", "dump_stacks", "runtime_logging", "host_network")
#: The life of a container, one question at each point that the framework can allow.
LIFE: list[tuple[str, dict[str, Any]]] = [
    ("runtime_logging", {}),
    ("mount_device", device("base", 0)),
    ("mount_device", device("top", 1)),
    ("rw_mount_device", RW),
    ("scratch_mount", {"target": SCRATCH, "encrypted": True}),
    ("mount_overlay", overlay(1, 0)),
    ("plan9_mount", {**PLAN9, "target": SHARE}),
    ("create_container", create()),
    ("host_network", {}),
    ("exec_in_container", execute()),
    ("exec_external", {"argList": ["ls"], "envList": ["A=1"], "workingDir": "/"}),
    ("get_properties", {}),
    ("dump_stacks", {}),
    (
        "signal_container_process",
        {"containerID": ID, "signal": 15, "isInitProcess": True, "argList": None},
    ),
    ("shutdown_container", {"containerID": ID}),
    ("plan9_unmount", {"unmountTarget": SHARE}),
    ("unmount_overlay", {"unmountTarget": f"/run/gcs/c/{ID}/rootfs"}),
    ("scratch_unmount", {"unmountTarget": SCRATCH}),
    ("rw_unmount_device", {"unmountTarget": RW["target"]}),
    ("unmount_device", {"unmountTarget": "/run/mounts/scsi/m0"}),
]
#: What only a policy of its own allows.
OWN = ("mount_blockdev", "unmount_blockdev", "modify_resource")


def whole() -> str:
    flags = {f"allow_{name}": True for name in FLAGS}
    return policy(
        external_processes=[EXTERNAL], fragments=[IMPORT], transparency_trust_lists=[TRUST], **flags
    ).replace("plan9_mount :=", 'modify_resource := {"allowed": false}\nplan9_mount :=', 1)


def calls() -> list[dict[str, Any]]:
    asked = [{"kind": "enforce", "point": point, "input": input} for point, input in LIFE]
    trust = {"issuer": "did:x", "subject": "s", "svn": 1, "keys": {"ledger": {"k": "AA=="}}}
    return [
        {"kind": "load_fragment", **FRAGMENT},
        {"kind": "load_transparency_trust_list", **trust},
        *asked,
        *({"kind": "enforce", "point": point, "input": {"target": "/x"}} for point in OWN),
    ]


def test_every_point_is_answered_and_the_life_of_a_container_allowed() -> None:
    session = {"name": "life", "policy": whole(), "os": "linux", "calls": calls()}
    [line] = replay_lines([json.dumps(session)])
    answers = json.loads(line)["calls"]
    named = [call.get("point", call["kind"]) for call in session["calls"]]  # type: ignore[attr-defined]
    assert set(named) == POINTS
    for point, answer in zip(named, answers, strict=True):
        assert answer["allowed"] is (point not in OWN), (point, answer)
        assert len(answer["metadata"]) == 64
        assert ("result" in answer) is answer["allowed"]
        assert "metadata" not in answer.get("result", {})


def test_every_point_is_denied_by_a_policy_that_lists_nothing() -> None:
    text = policy().replace(json.dumps([policies.container()]), "[]")
    asked = [call for call in calls() if call["kind"] == "enforce"]
    answers = replay({"name": "none", "policy": text, "calls": asked})["calls"]
    named = [call["point"] for call in asked]
    for point, answer in zip(named, answers, strict=True):
        # Neither of the two looks at containers: an encrypted scratch is nobody's secret.
        if point in ("rw_mount_device", "scratch_mount", "rw_unmount_device", "scratch_unmount"):
            assert answer["allowed"], point
            continue
        assert not answer["allowed"], point
        assert answer["decision"]["decision"] == "deny"
        assert "reason" in answer["decision"]
        assert "input" not in answer["decision"]


@pytest.mark.parametrize("lifted", [True, False])
def test_how_a_number_is_written_decides_nothing_and_is_not_in_the_digest(lifted: bool) -> None:
    more = "" if lifted else "some_containers := containers\n"  # a name that keeps the list in the text
    odd = whole().replace('"signals": [15]', '"signals": [1.5e1]')
    odd = odd.replace('"signals": [2]', '"signals": [2.0]')
    odd = odd.replace('"minimum_svn": 1,', '"minimum_svn": 1.0,')
    assert odd.count("1.5e1") == odd.count("2.0]") == 1
    kept = '{{"name": "n", "action": "update", "key": "k", "value": {}}}'
    counted = f'dump_stacks := {{{{"allowed": true, "metadata": [{kept}]}}}}\n'
    plain = whole().replace("dump_stacks := data.framework.dump_stacks\n", counted.format("100")) + more
    odd = odd.replace("dump_stacks := data.framework.dump_stacks\n", counted.format("1e2")) + more
    asked = calls()
    for call in asked:
        if call.get("point") == "signal_container_process":
            call["input"] = {**call["input"], "signal": 15.0}
    answers = [replay({"name": "", "policy": text, "calls": asked})["calls"] for text in (plain, odd)]
    assert answers[0] == answers[1]
    assert [one["allowed"] for one in answers[0]].count(False) == len(OWN)


@pytest.mark.parametrize("call", [{"kind": "begin"}, {"kind": "end", "rollback": True}])
def test_what_is_no_question_answers_nothing(call: dict[str, Any]) -> None:
    assert replay({"name": "", "policy": policy(), "calls": [call]})["calls"] == [{}]


def test_a_rollback_puts_everything_back() -> None:
    mount = {"kind": "enforce", "point": "mount_device", "input": device("base", 0)}
    session = {"name": "", "policy": policy(), "calls": [
        {"kind": "begin"}, mount, {"kind": "end", "rollback": True}, mount,
        {"kind": "begin"}, {"kind": "end", "rollback": False}, mount,
    ]}  # fmt: skip
    allowed = [answer.get("allowed") for answer in replay(session)["calls"]]
    assert allowed == [None, True, None, True, None, None, False]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "no json",
        "[]",
        "null",
        "1",
        '{"name": "x"}',
        '{"policy": 1}',
        '{"policy": "package policy", "calls": [1]}',
    ],
)
def test_a_line_that_is_no_session_is_answered_and_the_next_is_run(line: str) -> None:
    good = json.dumps({"name": "good", "policy": policy(), "calls": []})
    answers = [json.loads(answer) for answer in replay_lines([line, good])]
    assert answers[-1] == {"name": "good", "calls": []}
    if line:
        assert "error" in answers[0]


def test_an_unknown_kind_is_a_refusal_and_not_the_end() -> None:
    answer = json.loads(
        replay_line(json.dumps({"name": "", "policy": policy(), "calls": [{"kind": "dance"}]}))
    )
    assert answer["calls"][0]["allowed"] is False


def test_points_of_other_systems_are_answered_too() -> None:
    session = Session(policy())
    for point in ("mount_cims", "registry_changes", "log_provider"):
        assert not session.enforce(point, {}).allowed
