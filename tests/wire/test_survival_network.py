"""The daemon is killed in the middle of what makes a pod's network; the host is answered all the same."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.containers import new_id
from support.daemon import Daemon
from support.host import CREATE, MODIFY, NULL_ID, ZERO_GUID, Connection, code
from support.network import Machine, machine
from support.network_daemon import running_in
from support.pods import Pod, sandbox_spec

NS = "6F2A0E8A-3f0f-4c6e-9d57-0b5cb1b4a001"
#: What takes longest here takes about this.
LONGEST_S = 0.06


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Machine]:
    with machine(tmp_path / "sys") as one:
        yield one


@pytest.fixture
def daemon(made: Machine) -> Iterator[Daemon]:
    with running_in(made, options={"plugins-require": "network"}) as started:
        yield started


class Plug:
    """An adapter that comes back to the VM when the namespace that it was moved to ends.

    A real one does; of a pair of veth both are gone then.
    """

    def __init__(self, made: Machine) -> None:
        self._made = made
        self.mac = made.plug("out0")

    def back(self) -> None:
        if "out0" not in self._made.outside.names():
            self._made.plug("out0", self.mac)


def interrupted(
    plug: Plug, daemon: Daemon, bridge: Connection, delay_s: float, type_: int, **fields: Any
) -> None:
    """Ask, kill the daemon a little later, and get a yes."""
    fields = {"ContainerId": NULL_ID, "ActivityId": ZERO_GUID, **fields}
    asked = bridge.send(type_, fields)
    time.sleep(delay_s)
    daemon.kill_daemon()
    latest = time.monotonic() + 30
    while not bridge.answered(asked):
        assert time.monotonic() < latest, "no answer"
        plug.back()
        time.sleep(0.05)
    answer = bridge.answer(asked)
    assert code(answer) == "S_OK", answer["ErrorMessage"]


def change(verb: str, mac: str, **more: Any) -> dict[str, Any]:
    return {
        "RequestType": verb,
        "ResourceType": "Network",
        "Settings": {"NamespaceID": NS, "ID": mac, **more},
    }


def test_adapters_and_their_pod_come_and_go_whole(made: Machine, daemon: Daemon) -> None:
    seed = int(os.environ.get("UVMD_TEST_SEED") or int.from_bytes(os.urandom(4)))
    chooser = random.Random(seed)
    print(f"seed {seed}")
    plug = Plug(made)
    bridge = daemon.connect()
    address = {"IPConfigs": [{"IPAddress": "10.1.0.2", "PrefixLength": 24}]}
    alone = None
    for _ in range(4):
        change_in = chooser.uniform(0, LONGEST_S)
        interrupted(plug, daemon, bridge, change_in, MODIFY, Request=change("Add", plug.mac, **address))
        pod_id = new_id()
        spec = sandbox_spec(pod_id) | {"windows": {"network": {"networkNamespace": NS}}}
        interrupted(
            plug,
            daemon,
            bridge,
            chooser.uniform(0, LONGEST_S),
            CREATE,
            ContainerId=pod_id,
            ContainerConfig=bridge.host.container_config(pod_id, spec),
        )
        pod = Pod(bridge, pod_id, bridge.execute(pod_id))
        assert b"10.1.0.2/24" in pod.run("ip -o -4 addr")
        pod.close()
        plug.back()
        change_in = chooser.uniform(0, LONGEST_S)
        interrupted(plug, daemon, bridge, change_in, MODIFY, Request=change("Remove", plug.mac))
        now = made.vm.picture()
        assert alone in (None, now), "the same is left each time"
        alone = now
    bridge.properties(NULL_ID, "uvmd.ps")  # there is a daemon again, which can stop
    bridge.close()
