"""What a host has said of a policy before the bench begins: one column of the table each.

``shipped``: nothing, as most hosts; the VM does what its configuration says. ``open``: the
empty policy, which selects the open door. ``rego``: a policy of 60 containers, which makes
the VM strict (``sixty.py``).
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sixty

from support.daemon import Daemon, running
from support.host import DUMP_STACKS, NULL_ID, Connection
from uvmd.linux import mounts, syscalls

CLONE_NEWNS = 0x20000


@dataclass(frozen=True, slots=True)
class Stance:
    """One of them; ``connect`` takes a started daemon's bridge and says what there is to say."""

    word: str
    title: str
    connect: Callable[[Daemon], Connection]
    options: Mapping[str, str] = field(default_factory=dict)

    def running(
        self, *, options: Mapping[str, str] | None = None, **of_daemon: Any
    ) -> AbstractContextManager[Daemon]:
        """As ``support.daemon.running``, for a daemon that is then connected to."""
        return running(options={**self.options, **(options or {})}, **of_daemon)


def _open(daemon: Daemon) -> Connection:
    bridge = daemon.connect()
    bridge.modify(NULL_ID, "SecurityPolicy", settings={"EnforcerType": "open_door"})
    return bridge


def _rego(daemon: Daemon) -> Connection:
    daemon.host.bundles, daemon.host.connection = sixty.RUN_GCS, sixty.Layered
    layers = sixty.make_layers(daemon.folder / "layers")
    bridge = daemon.connect()
    assert isinstance(bridge, sixty.Layered)
    bridge.layers = layers
    settings = {"EnforcerType": "rego", "EncodedSecurityPolicy": sixty.policy(layers)}
    bridge.modify(NULL_ID, "SecurityPolicy", settings=settings)
    bridge.call(DUMP_STACKS, NULL_ID)  # the rule that mounts the layers, as far as the policy knows
    return bridge


SHIPPED = Stance("shipped", "shipped", Daemon.connect)
OPEN = Stance("open", "open door", _open)
REGO = Stance("rego", "Rego, 60", _rego, {"paths-bundle-roots": str(sixty.RUN_GCS)})
STANCES = (SHIPPED, OPEN, REGO)


def clock(bridge: Connection) -> float:
    """Seconds, without those that the host spent on the layers of its containers."""
    return time.perf_counter() - (bridge.aside_s if isinstance(bridge, sixty.Layered) else 0.0)


def with_own_root(bridge: Connection, config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The runtime's configuration with a root that does not go with the container: for a bare one.

    Layers get another overlay, which goes with the daemon's folder.
    """
    if not isinstance(bridge, sixty.Layered):
        return config
    root, upper, work = (tempfile.mkdtemp(prefix=name, dir=folder) for name in ("root", "upper", "work"))
    data = f"lowerdir={':'.join(bridge.layers[-sixty.LAYERS :])},upperdir={upper},workdir={work}"
    mounts.mount("overlay", root, "overlay", 0, data)
    return {**config, "root": {**config["root"], "path": root}}


@contextmanager
def place_of_our_own() -> Iterator[None]:
    """Have /run/gcs, the one place that a strict VM takes, for this process and its children.

    On the disk that the bundles of the other columns lie on.
    """
    sixty.RUN_GCS.mkdir(exist_ok=True)
    syscalls.unshare(CLONE_NEWNS)
    syscalls.mount("", "/", "", mounts.PROPAGATION["rprivate"])
    folder = tempfile.mkdtemp(prefix="uv-gcs-", dir="/tmp")
    try:
        mounts.mount(folder, str(sixty.RUN_GCS), "", syscalls.MS_BIND)
        yield
    finally:
        mounts.unmount_tree(str(sixty.RUN_GCS))
        shutil.rmtree(folder)
