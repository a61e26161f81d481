"""Policies as they are in the field: Azure's tool in its versions, and the first ones there were."""

from __future__ import annotations

from typing import Any

import confcom
import policies
import pytest
from confcom import FEED, ISSUER, PAUSE
from policies import ID, OTHER, device
from sessions import allow, deny, opened

from uvmd.api import Fragment
from uvmd_policy_rego.fragments import load_fragment
from uvmd_policy_rego.session import Session

WEB = confcom.container(
    "web",
    ["python3", "main.py"],
    ["base", "app"],
    mounts=[
        confcom.mount("/mnt/share", "azureFileVolume"),
        confcom.mount("/mnt/secrets", "secretsVolume", "ro"),
        confcom.mount("/etc/resolv.conf", "resolvconf"),
    ],
)
PROBED = confcom.container(
    "probed",
    ["serve"],
    ["base"],
    exec_processes=[{"command": ["/bin/sh", "-c", "true"], "signals": [], "allow_stdio_access": True}],
)


def running(text: str, described: dict[str, Any] = WEB, **changes: Any) -> Session:
    session = opened(text)
    layers = described["layers"]
    for number, layer in enumerate(layers):
        allow(session, "mount_device", device(layer, number))
    scratch = {"target": f"/run/gcs/c/{OTHER}/scratch/{ID}", "encrypted": True}
    allow(session, "scratch_mount", scratch)
    allow(session, "mount_overlay", policies.overlay(*reversed(range(len(layers)))))
    allow(session, "create_container", confcom.create(described, **changes))
    return session


VERSIONS = [
    ("0.10.0", "0.2.0", "version"),
    ("0.10.0", "0.2.2", "version"),
    ("0.10.0", "0.2.3", "version"),
    ("0.10.0", "0.4.1", "version"),
    ("0.11.0", "0.5.0", "version"),
]


@pytest.mark.parametrize(("api", "framework", "names"), VERSIONS)
def test_the_described_container_runs_in_every_version(api: str, framework: str, names: str) -> None:
    text = confcom.policy(WEB, PROBED, api=api, framework=framework, names=names)
    running(text)
    session = opened(text)
    for number, layer in enumerate(WEB["layers"]):
        allow(session, "mount_device", device(layer, number))
    allow(session, "mount_overlay", policies.overlay(1, 0))
    said = deny(session, "create_container", {**confcom.create(WEB), "argList": ["python3"]})
    assert said == ["invalid command"]
    answer = session.enforce("create_container", {**confcom.create(WEB), "argList": ["python3"]})
    assert set(answer.decision["reason"]) == {"errors"}, "this template shows no candidates"


def test_the_infrastructures_variables_are_kept_and_strange_ones_dropped() -> None:
    session = opened(confcom.policy(WEB))
    for number, layer in enumerate(WEB["layers"]):
        allow(session, "mount_device", device(layer, number))
    allow(session, "mount_overlay", policies.overlay(1, 0))
    asked = confcom.create(WEB)
    asked["envList"] = [*asked["envList"], "Identity_API=1", "TMP=/t", "TEMP=/t", "LD_PRELOAD=/evil.so"]
    kept = allow(session, "create_container", asked)["env_list"]
    assert sorted(kept) == sorted(set(asked["envList"]) - {"LD_PRELOAD=/evil.so"})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"privileged": True}, "privileged escalation not allowed"),
        ({"umask": "0000"}, "invalid user"),
        ({"seccompProfileSHA256": "0" * 64}, "invalid seccomp"),
        ({"workingDir": "/app"}, "invalid working directory"),
        ({"devices": [{"path": "/dev/sev"}]}, "devices not supported"),
        ({"mounts": [{"destination": "/x", "options": [], "source": "/", "type": "bind"}]}, "invalid mount"),
    ],
)
def test_what_the_template_pins_is_denied_when_changed(changes: dict[str, Any], reason: str) -> None:
    session = opened(confcom.policy(WEB))
    for number, layer in enumerate(WEB["layers"]):
        allow(session, "mount_device", device(layer, number))
    allow(session, "mount_overlay", policies.overlay(1, 0))
    said = deny(session, "create_container", {**confcom.create(WEB), **changes})
    assert [one for one in said if one.startswith(reason)], said


def test_a_probe_is_executed_and_nothing_else_is() -> None:
    session = running(confcom.policy(PROBED), PROBED)
    probe = {**policies.execute(argList=["/bin/sh", "-c", "true"]), **identity()}
    allow(session, "exec_in_container", probe)
    assert "invalid command" in deny(session, "exec_in_container", {**probe, "argList": ["/bin/sh"]})
    # No signals are listed, and this framework adds two for init.
    init = {"containerID": ID, "signal": 15, "isInitProcess": True, "argList": []}
    allow(session, "signal_container_process", init)
    assert deny(session, "signal_container_process", {**init, "signal": 1}) == [
        "target isn't allowed to receive the signal"
    ]


def identity() -> dict[str, Any]:
    asked = confcom.create(WEB)
    keys = ("envList", "workingDir", "noNewPrivileges", "user", "groups", "capabilities")
    return {key: asked[key] for key in keys}


def test_the_pause_container_is_every_groups_sandbox() -> None:
    running(confcom.policy(WEB), PAUSE, isSandboxContainer=True)


@pytest.mark.parametrize(("flag", "point"), [("properties_access", "get_properties"), ("dump_stacks",) * 2])
def test_the_flags_of_the_template_decide(flag: str, point: str) -> None:
    session = opened(confcom.policy(WEB))
    if confcom.FLAGS[f"allow_{flag}"]:
        allow(session, point, {})
    else:
        assert deny(session, point, {}) == []
    debug = opened(confcom.policy(WEB, **{f"allow_{flag}": True}))
    allow(debug, point, {})


def test_the_infrastructure_fragment_brings_its_containers() -> None:
    side = confcom.container("sidecar", ["/sidecar"], ["side"])
    session = opened(confcom.policy(WEB))
    assert deny(session, "mount_device", device("side", 3)) == ["deviceHash not found"]
    assert load_fragment(session, Fragment(ISSUER, FEED, confcom.fragment(side))).allowed
    allow(session, "mount_device", device("side", 3))
    allow(session, "mount_overlay", policies.overlay(3))
    allow(session, "create_container", confcom.create(side))


def test_the_first_versions_minimum_is_one_that_no_fragment_reaches() -> None:
    imports = [{"feed": FEED, "includes": ["containers"], "issuer": ISSUER, "minimum_svn": "1.0.0"}]
    text = confcom.policy(WEB, api="0.10.0", framework="0.1.0", names="svn", fragments=imports)
    session = opened(text)
    answer = load_fragment(session, Fragment(ISSUER, FEED, confcom.fragment(svn='"1"')))
    assert not answer.allowed
    assert answer.decision["reason"]["errors"] == [
        "fragment svn and the specified minimum are different types"
    ]


def test_a_policy_for_0_11_cannot_remove_writable_disks() -> None:
    disk = {
        "target": f"/run/gcs/c/{ID}",
        "encrypted": True,
        "ensureFilesystem": True,
        "filesystem": "ext4",
        "mountPathRegex": "/run/gcs/c/[0-9a-fA-F]{64}",
    }
    session = opened(confcom.policy(WEB, api="0.11.0"))
    allow(session, "rw_mount_device", disk)
    answer = session.enforce("rw_unmount_device", {"unmountTarget": disk["target"]})
    assert answer.decision["policyError"] == "rule for rw_unmount_device is missing from policy"
    older = opened(confcom.policy(WEB, api="0.10.0"))
    allow(older, "rw_mount_device", disk)
    allow(older, "rw_unmount_device", {"unmountTarget": disk["target"]})


def test_later_points_have_the_answer_of_their_time_in_an_older_policy() -> None:
    session = opened(confcom.policy(WEB))
    for point, input in (
        ("host_network", {}),
        ("mount_blockdev", {"target": "/dev/x"}),
        ("load_transparency_trust_list", {"issuer": "i", "subject": "s", "svn": 1, "ledgers": []}),
        ("modify_resource", {"resource_type": "example.com/X"}),
    ):
        assert not session.enforce(point, input).allowed


RAW = """package policy
api_version := "0.10.0"
framework_version := "0.2.3" # tabs, comments and commas after the last element
containers := [
\t{"command": ["run"], "env_rules": [{"pattern": `A=\\d+`, "strategy": "re2", "required": false,},],
\t "layers": ["base",], "mounts": [], "exec_processes": [], "signals": [], "allow_elevated": false,
\t "working_dir": "/", "allow_stdio_access": true, "no_new_privileges": false,
\t "user": {"user_idname": {"pattern": "", "strategy": "any"}, "group_idnames": [], "umask": "0022"},
\t "capabilities": null, "seccomp_profile_sha256": "",},
]
mount_device := data.framework.mount_device
mount_overlay := data.framework.mount_overlay
create_container := data.framework.create_container
reason := {"errors": data.framework.errors}
"""


def test_backticks_tabs_comments_and_trailing_commas_are_read() -> None:
    session = opened(RAW)
    allow(session, "mount_device", device("base", 0))
    allow(session, "mount_overlay", policies.overlay(0))
    described = confcom.container("raw", ["run"], ["base"], mounts=[])
    asked = {**confcom.create(described), "envList": ["A=12"], "groups": []}
    assert deny(session, "create_container", {**asked, "envList": ["A=x"]})[0] == "invalid env list"
    allow(session, "create_container", asked)
