"""The shaper: what annotations ask for, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from uvmd.api import Additions, ContainerRequest
from uvmd.api.testing import fake_environment
from uvmd.errors import Failed, Refused
from uvmd.plugin_manager import load_plugins
from uvmd.plugin_manager.inspection import resolve_all
from uvmd_example_cdi.config import CdiConfig
from uvmd_example_cdi.shaper import CdiShaper

NODE = {"path": "/dev/lamp", "type": "c", "major": 4, "minor": 64}


def ask(tmp_path: Path, annotations: dict[str, str], hooks: str = "refuse", **devices: Any) -> Additions:
    document = {
        "cdiVersion": "0.6.0",
        "kind": "example.com/lamp",
        "devices": [{"name": name, "containerEdits": edits} for name, edits in devices.items()],
        "containerEdits": {"env": ["LAMPS=here"]},
    }
    (tmp_path / "lamp.json").write_text(json.dumps(document))
    config = CdiConfig(directories=[str(tmp_path)], hooks=hooks)  # type: ignore[arg-type]
    shaper = CdiShaper(fake_environment(config))
    return shaper.additions(ContainerRequest("c", "s", annotations, {}, False))


def test_it_is_installed_and_everything_that_it_declares_resolves() -> None:
    plugins = load_plugins(allow=["cdi"], sections={"cdi": {"hooks": "ignore"}})
    assert plugins.names("container_shapers") == ("cdi",)
    assert plugins.config("cdi").hooks == "ignore"
    assert len(resolve_all(plugins)) == 1


@pytest.mark.parametrize("annotations", [{}, {"other": "example.com/lamp=left"}, {"cdi.k8s.io/x": " , "}])
def test_without_an_annotation_nothing_is_added(tmp_path: Path, annotations: dict[str, str]) -> None:
    assert ask(tmp_path, annotations, left={}) == Additions()


def test_devices_mounts_environment_and_groups_are_added(tmp_path: Path) -> None:
    edits = {
        "env": ["LAMP=left"],
        "deviceNodes": [{**NODE, "permissions": "r", "fileMode": 420, "gid": 5}],
        "mounts": [{"hostPath": "/opt/lamp", "containerPath": "/usr/lib/lamp"}],
        "additionalGids": [5, 6],
    }
    added = ask(tmp_path, {"cdi.k8s.io/a": "example.com/lamp=left, example.com/lamp=left"}, left=edits)
    assert added.devices == ({**NODE, "access": "r", "fileMode": 420, "gid": 5},)
    assert added.mounts == (
        {"destination": "/usr/lib/lamp", "source": "/opt/lamp", "type": "bind", "options": ["bind"]},
    )
    assert added.environment == {"LAMPS": "here", "LAMP": "left"}
    assert added.groups == (5, 6)


def test_what_two_devices_share_is_added_once(tmp_path: Path) -> None:
    annotations = {"cdi.k8s.io/a": "example.com/lamp=left", "cdi.k8s.io/b": "example.com/lamp=right"}
    shared = {"deviceNodes": [NODE]}
    assert len(ask(tmp_path, annotations, left=shared, right=shared).devices) == 1
    other = {"deviceNodes": [{**NODE, "minor": 65}]}
    with pytest.raises(Refused, match="/dev/lamp"):
        ask(tmp_path, annotations, left=shared, right=other)


def test_a_node_without_numbers_is_looked_up_in_the_vm(tmp_path: Path) -> None:
    wanted = {"cdi.k8s.io/a": "example.com/lamp=left"}
    added = ask(tmp_path, wanted, left={"deviceNodes": [{"path": "/dev/lamp", "hostPath": "/dev/null"}]})
    assert added.devices == ({"path": "/dev/lamp", "access": "rwm", "type": "c", "major": 1, "minor": 3},)
    with pytest.raises(Failed, match="/dev/no-such-lamp"):
        ask(tmp_path, wanted, left={"deviceNodes": [{"path": "/dev/no-such-lamp"}]})


def test_what_is_no_addition_is_refused(tmp_path: Path) -> None:
    wanted = {"cdi.k8s.io/a": "example.com/lamp=left"}
    hooks = {"hooks": [{"hookName": "createContainer", "path": "/bin/true"}]}
    with pytest.raises(Refused, match="hooks"):
        ask(tmp_path, wanted, left=hooks)
    assert ask(tmp_path, wanted, hooks="ignore", left=hooks).devices == ()
    for edits in ({"intelRdt": {}}, {"netDevices": [{"hostInterfaceName": "a", "name": "b"}]}):
        with pytest.raises(Refused, match="network devices or an RDT class"):
            ask(tmp_path, wanted, left=edits)
