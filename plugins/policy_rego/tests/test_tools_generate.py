"""From a configuration to a policy: fields, layers, bytes, measurements, and clear errors."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import configurations
import pytest
from configurations import HASH, WEB, write

from uvmd.image import build_image, open_source
from uvmd_policy_rego.session import Session
from uvmd_policy_rego.tools.errors import PolicyToolError
from uvmd_policy_rego.tools.generate import generate, generate_fragment, measure, meter
from uvmd_policy_rego.tools.writing import POINTS


def container_of(folder: Path, text: str) -> dict[str, Any]:
    made = generate(write(folder, text), pause=False)
    (container,) = made.config.parts.containers
    return container


def test_a_policy_is_written_as_the_references_tool_writes_it(tmp_path: Path) -> None:
    made = generate(write(tmp_path), pause=False)
    lines = made.measured.text.split("\n")
    assert lines[:6] == [
        "package policy",
        "",
        'api_version := "0.12.0"',
        'framework_version := "0.5.0"',
        "",
        "containers := [",
    ]
    assert lines[6:26] == [
        "    {",
        '        "name": "web",',
        '        "command": ["web","--port","80"],',
        '        "env_rules": [{"pattern":"TERM=xterm","strategy":"string","required":false},'
        '{"pattern":"TOKEN=.+","strategy":"re2","required":true}],',
        f'        "layers": ["{HASH}"],',
        '        "mounts": [{"destination":"/data","options":["rbind","rshared","ro"],'
        '"source":"sandbox:///data/.+","type":"bind"}],',
        '        "exec_processes": [{"command":["top","-b"],"signals":[9]}],',
        '        "signals": [15],',
        '        "user": {',
        '            "user_idname": {"pattern":"1000","strategy":"id"},',
        '            "group_idnames": [{"pattern":"","strategy":"any"}],',
        '            "umask": "0027"',
        "        },",
        '        "capabilities": {',
        '            "bounding": ["CAP_KILL"],',
        '            "effective": [],',
        '            "inheritable": [],',
        '            "permitted": [],',
        '            "ambient": [],',
        "        },",
    ]
    assert lines[26:42] == [
        '        "seccomp_profile_sha256": "",',
        '        "allow_elevated": false,',
        '        "working_dir": "/srv",',
        '        "allow_stdio_access": true,',
        '        "no_new_privileges": true,',
        "    },",
        "]",
        "allow_properties_access := false",
        "allow_dump_stacks := false",
        "allow_runtime_logging := false",
        "allow_host_network := false",
        "allow_environment_variable_dropping := false",
        "allow_unencrypted_scratch := false",
        "allow_capability_dropping := false",
        "allow_log_provider_dropping := false",
        "",
    ]
    assert lines[43] == "mount_device := data.framework.mount_device"
    assert [line.split()[0].removesuffix(":=") for line in lines[43:69]] == POINTS
    assert lines[69:] == ["reason := data.framework.reason", ""]


def test_the_engine_takes_what_was_generated(tmp_path: Path) -> None:
    session = Session(generate(write(tmp_path)).measured.text)
    assert session.documents.static
    assert len(session.documents.find("data.framework.candidate_containers")[0]) == 2
    device = {
        "target": "/run/mounts/scsi/m0",
        "deviceHash": HASH,
        "mountPathRegex": "/run/mounts/scsi/m[0-9]+",
    }
    assert session.enforce("mount_device", device).allowed


def test_hardware_measures_every_byte_of_the_text() -> None:
    text = "package policy\n"
    measured = measure(text)
    assert measured.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert base64.b64decode(measured.encoded) == text.encode()
    assert measured.snp_host_data == measured.sha256
    assert measured.tdx_mrconfigid == measured.sha256 + 32 * "0"


def test_the_meter_names_each_limit_and_its_source() -> None:
    large = measure("#" * 120_000)
    assert [size["fits"] for size in large.sizes()] == [False, True, True, True]
    assert any("TOO LARGE" in line and "MAX_ARG_STRLEN" in line for line in meter(large))


def test_the_pause_container_comes_last_unless_it_is_not_wanted(tmp_path: Path) -> None:
    path = write(tmp_path)
    containers = generate(path).config.parts.containers
    assert [one["command"][0] for one in containers] == ["web", "/pause"]
    assert containers[1]["allow_elevated"] is True
    assert containers[1]["signals"] == [9, 15]
    assert len(generate(write(tmp_path, "pause = false\n" + WEB)).config.parts.containers) == 1


def test_switches_processes_fragments_and_lists_are_read(tmp_path: Path) -> None:
    text = """
allow_hostnetwork = true
allow_dump_stacks = true
[[external_process]]
command = ["ls"]
working_dir = "/"
allow_stdio_access = true
[[fragment]]
issuer = "did:x509:0:sha256:x::eku:1.2"
feed = "registry/feed"
minimum_svn = "2"
include = ["containers", "fragments"]
required_receipts = ["*"]
parameters = {size = 3}
[[platform_rule]]
[[platform_rule.env_rule]]
name = "X"
name_strategy = "string"
value = ".+"
value_strategy = "re2"
[[transparency_trust_list]]
issuer = "i"
subject = "s"
minimum_svn = "1"
allowed_ledgers = ["*"]
"""
    text = generate(write(tmp_path, text), pause=False).measured.text
    find = Session(text).documents.find
    assert "allow_host_network := true\n" in text
    assert "allow_dump_stacks := true\n" in text
    (process,) = find("data.policy.external_processes")[0]
    assert process["env_rules"][0]["pattern"].startswith("PATH=/usr/local/sbin:")
    (fragment,) = find("data.framework.candidate_fragments")[0]
    assert fragment["parameters"] == {"size": 3}
    assert fragment["required_receipts"] == ["*"]
    assert find("data.framework.candidate_platform_rules")[0][0]["env_rules"][0]["name"] == "X"
    assert find("data.framework.candidate_transparency_trust_lists")[0][0]["allowed_ledgers"] == ["*"]


def test_json_configurations_have_the_references_names(tmp_path: Path) -> None:
    container = {
        "layers": [HASH],
        "command": ["a"],
        "env_rules": [{"UseNameValue": True, "Name": "A", "NameStrategy": "string", "Value": "b.",
                       "ValueStrategy": "re2", "required": True}],
        "mounts": [{"host_path": "plan9://x", "container_path": "/x"}],
        "exec_processes": [{"command": ["b"]}],
        "user": {"user_idname": {"strategy": "any"}, "group_idnames": [{"strategy": "any"}],
                 "umask": "0022"},
    }  # fmt: skip
    made = generate(write(tmp_path, json.dumps({"containers": [container]}), "c.json"), pause=False)
    (found,) = made.config.parts.containers
    assert found["env_rules"][1] == {
        "name": "A", "name_strategy": "string", "value": "b.", "value_strategy": "re2", "required": True,
    }  # fmt: skip
    assert found["mounts"][0] == {
        "destination": "/x", "options": ["rbind", "rprivate", "rw"], "source": "plan9://x", "type": "bind",
    }  # fmt: skip


def test_the_sources_of_mounts_decide_their_type_and_options(tmp_path: Path) -> None:
    text = WEB.split("[[container.env_rule]]")[0]
    for source in ("sandbox:///a", "hugepages://2M/a", "plan9://", "/tmp/a"):
        text += f'[[container.mount]]\nhost_path = "{source}"\ncontainer_path = "/x"\n'
    mounts = container_of(tmp_path, text)["mounts"]
    assert [(one["type"], one["options"][1]) for one in mounts] == [
        ("bind", "rshared"), ("bind", "rshared"), ("bind", "rprivate"), ("none", "rprivate"),
    ]  # fmt: skip


def test_the_hash_of_a_layer_image_is_read_from_it(tmp_path: Path) -> None:
    with open_source(str(configurations.directory(tmp_path))) as source, source.layers[0].tree() as tree:
        image = build_image(tree, tmp_path / "base.img")
    path = write(tmp_path, WEB.replace(HASH, "base.img"))
    made = generate(path, pause=False, check_layers=True)
    assert made.config.parts.containers[0]["layers"] == [image.root_hash]
    assert made.config.layer_origins == [["read from base.img, verified"]]


def test_the_hash_of_a_directory_is_that_of_the_image_that_would_be_built(tmp_path: Path) -> None:
    tree = configurations.directory(tmp_path)
    with open_source(str(tree)) as source, source.layers[0].tree() as read:
        expected = build_image(read, None).root_hash
    container = container_of(tmp_path, WEB.replace(f'layers = ["{HASH}"]', 'image = "rootfs"'))
    assert container["layers"] == [expected]


def test_an_oci_image_says_what_the_configuration_does_not(tmp_path: Path) -> None:
    image = {
        "Entrypoint": ["/entry"], "Cmd": ["serve"], "Env": ["PATH=/bin"], "WorkingDir": "/app",
        "User": "1000:staff",
    }  # fmt: skip
    configurations.oci_layout(tmp_path / "oci", image, "base", "top")
    container = container_of(tmp_path, '[[container]]\nimage = "oci"\n')
    assert container["command"] == ["/entry", "serve"]
    assert container["env_rules"][0] == {"pattern": "PATH=/bin", "strategy": "string", "required": True}
    assert container["working_dir"] == "/app"
    assert container["user"]["user_idname"] == {"pattern": "1000", "strategy": "id"}
    assert container["user"]["group_idnames"] == [{"pattern": "staff", "strategy": "name"}]
    assert len(container["layers"]) == len(set(container["layers"])) == 2


def test_an_images_configuration_may_stand_beside_given_hashes(tmp_path: Path) -> None:
    (tmp_path / "image.json").write_text(json.dumps({"config": {"Cmd": ["x"], "User": ""}}))
    text = f'[[container]]\nlayers = ["{HASH.upper()}"]\nimage_config = "image.json"\n'
    container = container_of(tmp_path, text)
    assert container["command"] == ["x"]
    assert container["layers"] == [HASH]
    assert container["working_dir"] == "/"
    assert container["user"]["user_idname"]["strategy"] == "any"


def test_a_seccomp_profile_is_measured_as_the_guest_does(tmp_path: Path) -> None:
    (tmp_path / "seccomp.json").write_text('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}')
    profile = 'seccomp_profile_path = "seccomp.json"\n[[container.env_rule]]'
    container = container_of(tmp_path, WEB.replace("[[container.env_rule]]", profile, 1))
    expected = hashlib.sha256(b'{"defaultAction":"SCMP_ACT_ALLOW"}').hexdigest()
    assert container["seccomp_profile_sha256"] == expected


def test_what_has_no_effect_is_said(tmp_path: Path) -> None:
    text = WEB.replace('command = ["top", "-b"]', 'command = ["top", "-b"]\nworking_dir = "/"')
    made = generate(write(tmp_path, text), pause=False)
    assert made.config.remarks == [
        "container[0].exec_process[0].working_dir has no effect:"
        " an exec runs in the container's working directory"
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("working_dir", "wrking_dir", "container[0].wrking_dir is not known; did you mean working_dir?"),
        (f'layers = ["{HASH}"]', "", "container[0].layers: is missing"),
        (f'layers = ["{HASH}"]', 'image_name = "a:1"', "('a:1' is not pulled)"),
        (HASH, "nothing.img", "layer 'nothing.img' is neither a root hash"),
        (f'"{HASH}"', "5", "container[0].layers: must be a list of texts"),
        ('command = ["web", "--port", "80"]', "", "container[0].command: is missing"),
        ('rule = "TOKEN=.+"', 'rule = "TOKEN=("', "container[0].env_rule[0].rule: 'TOKEN=(' is no RE2"),
        ('strategy = "re2"', 'strategy = "glob"', "'glob' is none of string, re2"),
        ('"SIGTERM"', '"SIGNOT"', "container[0].signals: 'SIGNOT' is no signal"),
        ("signals = [9]", "signals = [true]", "True is no signal"),
        ('umask = "0027"', "", "container[0].user.umask: is missing"),
        ('strategy = "id"', 'strategy = "uid"', "'uid' is none of any, id, name, re2"),
        ("readonly = true", 'readonly = "yes"', "container[0].mount[0].readonly: must be true or false"),
        ('host_path = "sandbox:///data/.+"', "", "container[0].mount[0].host_path: is missing"),
        ("[[container]]", "allow_all = true\n[[container]]", "Invalid policy for open-door enforcer"),
        ("[[container]]", "[[container]", "is not TOML"),
    ],
)
def test_mistakes_are_named_by_their_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in WEB
    with pytest.raises(PolicyToolError) as raised:
        generate(write(tmp_path, WEB.replace(old, new, 1)))
    assert message in str(raised.value)


def test_an_open_door_allows_every_point(tmp_path: Path) -> None:
    session = Session(generate(write(tmp_path, "allow_all = true")).measured.text)
    for point in POINTS:
        assert session.enforce(point, {}).allowed, point


def test_a_fragment_has_an_svn_and_no_rules(tmp_path: Path) -> None:
    made = generate_fragment(write(tmp_path), "infra", "3", pause=False)
    assert made.measured.text.startswith('package infra\n\nsvn := "3"\nframework_version := "0.5.0"\n\n')
    assert "data.framework" not in made.measured.text
    for namespace, svn in (("policy", "1"), ("a-b", "1"), ("infra", "one")):
        with pytest.raises(PolicyToolError):
            generate_fragment(write(tmp_path), namespace, svn)
    with pytest.raises(PolicyToolError, match="allow_dump_stacks"):
        generate_fragment(write(tmp_path, "allow_dump_stacks = true\n" + WEB), "infra", "1")
