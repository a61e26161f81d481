"""What a host has said of a policy before the bench begins: one column of the table each.

``shipped``: nothing, as most hosts; the VM does what its configuration says. ``open``: the
empty policy, which selects the open door. ``rego``: a policy of 60 containers, which makes
the VM strict (``sixty.py``).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sixty
from bare import Bare

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

    @contextmanager
    def running(self, *, options: Mapping[str, str] | None = None, **of_daemon: Any) -> Iterator[Daemon]:
        """As ``support.daemon.running``, for a daemon that is then connected to.

        Its folder is a tmpfs: bundles and scratch folders lie below /run in a VM, and how
        long a disk takes to forget them is not the question.
        """
        folder = Path(tempfile.mkdtemp(prefix="uv-", dir="/tmp"))
        try:
            with tmpfs(folder):
                with running(
                    options={**self.options, **(options or {})}, folder=folder, **of_daemon
                ) as daemon:
                    yield daemon
        finally:
            folder.rmdir()


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


class OwnRoot:
    """An overlay for the bare runtime, as new at every container as those that uvmd's containers get.

    The runtime makes the mount points of a new root, which takes time on both sides; putting
    the root together takes none on either.
    """

    def __init__(self, layers: Sequence[str], folder: Path) -> None:
        self._parts = {name: str(folder / f"bare-{name}") for name in ("rootfs", "upper", "work")}
        self._data = (
            f"lowerdir={':'.join(layers)},upperdir={self._parts['upper']},workdir={self._parts['work']}"
        )
        self.path = self._parts["rootfs"]
        self._there = False

    def renew(self) -> None:
        if self._there:
            mounts.unmount(self.path)
        for part in self._parts.values():
            shutil.rmtree(part, ignore_errors=True)
            os.mkdir(part)
        mounts.mount("overlay", self.path, "overlay", 0, self._data)
        self._there = True


def bare_beside(bridge: Connection, runtime: str, config: dict[str, Any], folder: Path) -> Bare:
    """The bare runtime with this configuration, and a root of its own where uvmd's container has layers."""
    if not isinstance(bridge, sixty.Layered):
        return Bare(runtime, config, folder)
    # It goes with the daemon's folder.
    root = OwnRoot(bridge.layers[-sixty.LAYERS :], folder)
    root.renew()
    return Bare(runtime, {**config, "root": {**config["root"], "path": root.path}}, folder, root.renew)


@contextmanager
def tmpfs(folder: Path) -> Iterator[None]:
    mounts.mount("tmpfs", str(folder), "tmpfs", 0, "size=256m,mode=0700")
    try:
        yield
    finally:
        mounts.unmount_tree(str(folder))


@contextmanager
def place_of_our_own() -> Iterator[None]:
    """Have /run/gcs, the one place that a strict VM takes, for this process and its children."""
    sixty.RUN_GCS.mkdir(exist_ok=True)
    syscalls.unshare(CLONE_NEWNS)
    syscalls.mount("", "/", "", mounts.PROPAGATION["rprivate"])
    with tmpfs(sixty.RUN_GCS):
        yield
