"""CDI devices in real containers, asked for over the bridge (root)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.containers import created, run, shell
from support.daemon import Daemon, running
from support.host import Connection, Refused, code

pytestmark = [pytest.mark.root, pytest.mark.system]

WANTED = {"cdi.k8s.io/lamps": "example.com/lamp=left"}


@pytest.fixture
def daemon(tmp_path: Path, runtime: str) -> Iterator[Daemon]:
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt" / "manual").write_text("turn it on\n")
    # One that no runtime allows by itself, and that nobody minds being opened.
    node = {"path": "/dev/lamp", "hostPath": "/dev/cpu_dma_latency", "permissions": "r"}
    manual = {"hostPath": str(tmp_path / "opt"), "containerPath": "/mnt", "options": ["bind", "ro"]}
    document = {
        "cdiVersion": "0.6.0",
        "kind": "example.com/lamp",
        "devices": [
            {
                "name": "left",
                "containerEdits": {"deviceNodes": [node], "mounts": [manual], "env": ["LAMP=left"]},
            },
            {"name": "clash", "containerEdits": {"mounts": [{"hostPath": "/", "containerPath": "/tmp"}]}},
        ],
    }
    (tmp_path / "lamp.json").write_text(json.dumps(document))
    (tmp_path / "uvmd.toml").write_text(f'[plugin.cdi]\ndirectories = ["{tmp_path}"]\n')
    with running(runtime=runtime, options={"config": str(tmp_path / "uvmd.toml")}) as started:
        yield started


@pytest.fixture
def bridge(daemon: Daemon) -> Iterator[Connection]:
    connection = daemon.connect()
    yield connection
    connection.close()


def test_a_container_gets_what_the_vendors_file_says(bridge: Connection) -> None:
    script = "head -c 4 /dev/lamp | wc -c; cat /mnt/manual; echo $LAMP; (echo > /dev/lamp) 2>&1"
    ran = run(bridge, *shell(script), annotations=WANTED)
    assert ran.stdout.decode().splitlines()[:3] == ["4", "turn it on", "left"]
    assert b"not permitted" in ran.stdout, "the device may be read only"


def test_other_containers_get_nothing(bridge: Connection) -> None:
    assert run(bridge, *shell("ls /dev/lamp 2>/dev/null; echo -$LAMP-")).stdout == b"--\n"


@pytest.mark.parametrize("name", ["clash", "missing"])
def test_a_container_that_cannot_have_its_device_is_refused(
    daemon: Daemon, bridge: Connection, name: str
) -> None:
    wanted = {"cdi.k8s.io/lamps": f"example.com/lamp={name}"}
    with pytest.raises(Refused) as caught, created(bridge, "/bin/true", annotations=wanted):
        pass
    assert code(caught.value.answer) == "E_FAIL"
    assert ("/tmp" if name == "clash" else name) in caught.value.answer["ErrorMessage"]
    assert not list(daemon.bundles.glob("c/*"))
