"""An overlay added and removed over the bridge, beside the system calls that it takes."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import footprint
import sixty
from report import Figure, milliseconds
from stances import Stance

from support.containers import new_id
from support.host import NULL_ID, Connection
from uvmd.linux import mounts

LAYERS = sixty.DEEP


def added_and_removed(stance: Stance, count: int) -> Figure:
    """20 layers with a scratch on the container's own disk, one container after another.

    The scratch lies on a tmpfs: unmounting an overlay writes its scratch's file system out, and
    how long a disk takes for that is not the question.
    """
    with stance.running() as daemon:
        bridge = stance.connect(daemon)
        footprint.settled(daemon)
        ours, bare = _measure(bridge, daemon.folder, count)
        bridge.close()
    calls_ms = milliseconds(bare)
    above_ms = milliseconds(ours) - calls_ms
    baseline = f"the bare system calls take {calls_ms:.2f} ms"
    return Figure(f"overlay of {LAYERS} layers, add and remove, above", 2.0, above_ms, "ms", baseline, count)


def _measure(bridge: Connection, folder: Path, count: int) -> tuple[list[float], list[float]]:
    layers: Sequence[str] = getattr(bridge, "layers", ()) or sixty.make_layers(folder / "layers")
    ours, bare = [], []
    for number in range(count + 5):
        took = _over_the_bridge(bridge, layers), _by_calls(folder / new_id(), layers)
        if number >= 5:  # the first bring modules in
            ours.append(took[0])
            bare.append(took[1])
    return ours, bare


def _over_the_bridge(bridge: Connection, layers: Sequence[str]) -> float:
    container_id = new_id()  # a policy knows an id for ever
    bundle = bridge.host.bundle(container_id)
    root, scratch = f"{bundle}/rootfs", f"{bundle}/scratch/{container_id}"
    began = time.perf_counter()
    bridge.modify(NULL_ID, "CombinedLayers", settings=sixty.combined(container_id, root, scratch, layers))
    bridge.modify(NULL_ID, "CombinedLayers", "Remove", {"ContainerRootPath": root})
    return time.perf_counter() - began


def _by_calls(bundle: Path, layers: Sequence[str]) -> float:
    upper, work, root = (f"{bundle}/{name}" for name in ("upper", "work", "rootfs"))
    data = f"lowerdir={':'.join(layers)},upperdir={upper},workdir={work}"
    began = time.perf_counter()
    for path in (upper, work, root):
        os.makedirs(path, exist_ok=True)
    mounts.mount("overlay", root, "overlay", 0, data)
    mounts.unmount(root)
    os.rmdir(root)
    return time.perf_counter() - began
