"""The gate in the real daemon with the Rego enforcer: without it, with a record, with other types (root)."""

from __future__ import annotations

import json
from pathlib import Path

import policies
import pytest
from click.testing import CliRunner
from strict_pods import body, fine, modify, reasons, set_policy

from support.containers import new_id
from support.daemon import running
from support.host import DUMP_STACKS, GET_PROPERTIES, NULL_ID, code
from uvmd_policy_rego.cli import policy as verbs
from uvmd_policy_rego.enforcer import encode

pytestmark = [pytest.mark.root, pytest.mark.system]
RAMDISK = "example.com/Ramdisk"


def test_without_the_plugin_no_policy_is_taken_and_the_closed_door_stays_closed() -> None:
    with running(options={"plugins-deny": "policy_rego", "vm-stance": "deny"}) as daemon:
        bridge = daemon.connect()
        for name in ("", "rego"):
            settings = {"EnforcerType": name, "EncodedSecurityPolicy": encode(policies.policy())}
            answer = modify(bridge, "SecurityPolicy", "Add", settings)
            assert code(answer) == "E_FAIL"
            assert 'unknown enforcer: "rego" is not installed' in answer["ErrorMessage"]
        assert "denied by policy" in bridge.ask(DUMP_STACKS, body(NULL_ID))["ErrorMessage"]
        bridge.close()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "rego compilation failed"),
        ("package policy\nx := {", "rego compilation failed"),
        ("no rego at all", "rego compilation failed"),
        ("{", "rego compilation failed"),
    ],
)
def test_a_policy_that_does_not_parse_is_refused_and_may_be_tried_again(text: str, why: str) -> None:
    with running(options={"plugins-require": "policy_rego", "vm-stance": "deny"}) as daemon:
        bridge = daemon.connect()
        settings = {"EnforcerType": "rego", "EncodedSecurityPolicy": encode(text)}
        answer = modify(bridge, "SecurityPolicy", "Add", settings)
        assert code(answer) == "E_FAIL"
        assert why in answer["ErrorMessage"]
        assert encode(text) == "" or encode(text) not in answer["ErrorMessage"]
        assert code(bridge.ask(DUMP_STACKS, body(NULL_ID))) == "E_FAIL"
        set_policy(bridge, policies.policy(allow_dump_stacks=True))
        assert code(bridge.ask(DUMP_STACKS, body(NULL_ID))) == "S_OK"
        bridge.close()


OWN = 'modify_resource := {"allowed": true} if {\n\tinput.resource_type == "example.com/Ramdisk"\n'
OWN += '\tinput.request_type == "Add"\n\tstartswith(input.settings.MountPath, "/run/mounts/")\n}\n'


def test_a_third_partys_type_is_allowed_by_a_policy_that_knows_it_and_by_no_other() -> None:
    place = f"/run/mounts/{new_id()[:8]}"
    settings = {"MountPath": place, "SizeMiB": 1}
    for text, fine_there in ((policies.policy(), False), (policies.policy(more=OWN), True)):
        with running(options={"plugins-require": "policy_rego"}) as daemon:
            bridge = daemon.connect()
            set_policy(bridge, text)
            answer = modify(bridge, RAMDISK, "Add", settings)
            assert (code(answer) == "S_OK") is fine_there, answer
            assert Path(place).exists() is fine_there
            elsewhere = modify(bridge, RAMDISK, "Add", {**settings, "MountPath": "/run/elsewhere"})
            assert "example.com/Ramdisk denied by policy" in elsewhere["ErrorMessage"]
            if fine_there:
                # Its removal is another question, and this policy says nothing of it.
                assert code(modify(bridge, RAMDISK, "Remove", settings)) == "E_FAIL"
                assert Path(place).is_mount()
                unmount(place)
            bridge.close()


def unmount(place: str) -> None:
    from uvmd.linux import mounts

    mounts.unmount(place)
    Path(place).rmdir()


def test_a_daemon_records_where_its_configuration_says_so_and_the_record_replays(tmp_path: Path) -> None:
    record, config = tmp_path / "record.jsonl", tmp_path / "uvmd.toml"
    config.write_text(f'[plugin.policy_rego]\nrecord = "{record}"\n')
    with running(options={"config": str(config), "plugins-require": "policy_rego"}) as daemon:
        bridge = daemon.connect()
        set_policy(bridge, policies.policy(allow_properties_access=True))
        fine(bridge.ask(GET_PROPERTIES, body(NULL_ID, Query='{"PropertyTypes":["uvmd.ps"]}')))
        remove = {"ContainerRootPath": f"/run/gcs/c/{new_id()}/rootfs"}
        denied = modify(bridge, "CombinedLayers", "Remove", remove)
        assert reasons(denied) == ["no overlay at path to unmount"]
        daemon.kill_daemon()
        fresh = daemon.connect()
        assert code(fresh.ask(DUMP_STACKS, body(NULL_ID))) == "E_FAIL"
        fresh.close()
        bridge.close()
    session = tmp_path / "session.jsonl"
    result = CliRunner().invoke(verbs, ["record", str(record), "-o", str(session), "--name", "one"])
    assert result.exit_code == 0, result.output
    assert session.stat().st_mode & 0o777 == 0o600
    replayed = CliRunner().invoke(verbs, ["replay", str(session)])
    asked = [call.get("point", call["kind"]) for call in json.loads(session.read_text())["calls"]]
    allowed = [answer.get("allowed") for answer in json.loads(replayed.output)["calls"]]
    of = list(zip(asked, allowed, strict=True))
    assert ("get_properties", True) in of
    assert ("unmount_overlay", False) in of
    assert of[-1] == ("dump_stacks", False)
    # The denied change was a transaction, and was taken back.
    assert asked[asked.index("unmount_overlay") - 1] == "begin"
    assert asked[asked.index("unmount_overlay") + 1] == "end"


def test_without_it_nothing_is_recorded(tmp_path: Path) -> None:
    with running(options={"plugins-require": "policy_rego"}) as daemon:
        bridge = daemon.connect()
        set_policy(bridge, policies.policy())
        bridge.close()
        assert not list(daemon.folder.rglob("*record*"))
    result = CliRunner().invoke(verbs, ["record", str(tmp_path / "none.jsonl")])
    assert result.exit_code != 0
