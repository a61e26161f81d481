"""A policy of 60 containers at work: its text, and a host that brings each container's layers.

The containers that the bench runs are three of the 60, as long as the others. Layers here
are folders: a strict VM takes no disk without dm-verity, which needs a kernel of our own
(`make guest-test`). So what mount_device would note, a rule of the policy notes when
DumpStacks is asked; every other question goes the framework's whole way.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from support import pods, rootfs, specs
from support.host import CREATE, DELETE, NULL_ID, Connection, Host

PLUGIN = Path(__file__).parents[2] / "plugins" / "policy_rego"
#: The one place where a strict VM has its containers.
RUN_GCS = Path("/run/gcs")
CONTAINERS, LAYERS, DEEP = 60, 6, 20
#: What runs in the container that sleeps.
EXECS = (("/bin/true",), ("/bin/cat",), ("dd", "if=/dev/zero", "bs=1M", "count=1024"))
SHARED = pods.bind("/mnt", "sandbox:///data")


def network_files() -> list[dict[str, Any]]:
    """The mounts of a container of no pod: what it would be given has a path that no policy knows."""
    return [
        pods.bind(f"/etc/{name}", f"{rootfs.shared()}/etc/{name}", "ro")
        for name in ("hostname", "hosts", "resolv.conf")
    ]


def make_layers(folder: Path) -> list[str]:
    """Make the folders; the base, which is the last, has the files."""
    made = [folder / str(number) for number in range(DEEP - 1)]
    for layer in made:
        layer.mkdir(parents=True)
    return [*map(str, made), str(rootfs.shared())]


def policy(layers: Sequence[str]) -> str:
    """Return the policy, encoded, for layers that are given with the topmost first."""
    sys.path[:0] = [str(PLUGIN / "bench"), str(PLUGIN / "tests")]
    import decisions
    import policies
    import strict_pods

    from uvmd_policy_rego.enforcer import encode

    like = decisions.realistic(0)

    def long(command: Sequence[str], layers: Sequence[str], **changes: Any) -> dict[str, Any]:
        """A container, alone or in a pod, with as many rules more as its neighbours have."""
        made: dict[str, Any] = strict_pods.describe(specs.container(*command), layers, **changes)
        made["env_rules"] += like["env_rules"]
        made["mounts"] += [*network_files(), SHARED, *like["mounts"]]
        return made

    hashes = {path: f"{number:064x}" for number, path in enumerate(layers)}
    base_first = [hashes[path] for path in reversed(layers)]
    process = {"signals": [9, 15]}
    execs = [{"command": list(command), **process} for command in EXECS]
    described = [
        long(("/bin/true",), base_first[:LAYERS]),
        long(("/bin/sleep", "600"), base_first[:LAYERS], exec_processes=execs),
        long(pods.PAUSE, base_first[:LAYERS]),
        long(("/bin/true",), base_first),
    ]
    others = map(decisions.realistic, range(len(described), CONTAINERS))
    flags = {"allow_properties_access": True, "allow_unencrypted_scratch": True}
    text = policies.policy(*described, *others, **flags)
    noted = [{"name": "devices", "action": "add", "key": path, "value": hashes[path]} for path in layers]
    rule = json.dumps({"allowed": True, "metadata": noted})
    alias = "dump_stacks := data.framework.dump_stacks\n"
    assert alias in text
    return encode(text.replace(alias, f"dump_stacks := {rule}\n"))


class Layered(Connection):
    """A host's end that puts a container's layers together before its create, and apart before its delete.

    These are other requests than those that a bar is about: what they take is in ``aside_s``.
    """

    layers: Sequence[str] = ()

    def __init__(self, host: Host, read_fd: int, write_fd: int) -> None:
        super().__init__(host, read_fd, write_fd)
        self.aside_s = 0.0

    def send(self, type_: int, body: Any = None, *, id_: int | None = None) -> int:
        began = time.perf_counter()
        if type_ == CREATE:
            body = {**body, "ContainerConfig": self._laid(body["ContainerId"], body["ContainerConfig"])}
        elif type_ == DELETE:
            root = {"ContainerRootPath": f"{RUN_GCS}/c/{body['ContainerId']}/rootfs"}
            self.modify(NULL_ID, "CombinedLayers", "Remove", root)
        self.aside_s += time.perf_counter() - began
        return super().send(type_, body, id_=id_)

    def _laid(self, container_id: str, config_text: str) -> str:
        config: dict[str, Any] = json.loads(config_text)
        root = f"{config['OciBundlePath']}/rootfs"
        spec = config["OciSpecification"]
        spec["root"]["path"] = root
        if pods.TYPE not in spec["annotations"]:
            spec["mounts"] += network_files()
        settings = combined(container_id, root, config["ScratchDirPath"], self.layers[-LAYERS:])
        self.modify(NULL_ID, "CombinedLayers", settings=settings)
        return json.dumps(config)


def combined(container_id: str, root: str, scratch: str, layers: Sequence[str]) -> Mapping[str, Any]:
    """The settings of CombinedLayers."""
    return {
        "ContainerID": container_id,
        "ContainerRootPath": root,
        "Layers": [{"Path": path} for path in layers],
        "ScratchPath": scratch,
    }
