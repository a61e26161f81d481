"""An overlay added and removed over the bridge, beside the system calls that it takes."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import footprint
from report import Figure, milliseconds

from support.daemon import running
from support.host import NULL_ID, Connection
from uvmd.linux import mounts

LAYERS = 20


def added_and_removed(count: int) -> Figure:
    """20 layers with a scratch on the container's own disk, one after another.

    Everything lies on a tmpfs, as /run does in a VM. So does the scratch: unmounting an
    overlay writes its scratch's file system out, and how long a disk takes for that is not
    the question.
    """
    folder = Path(tempfile.mkdtemp(prefix="uv-", dir="/tmp"))
    mounts.mount("tmpfs", str(folder), "tmpfs", 0, "size=64m,mode=0700")
    try:
        with running(folder=folder) as daemon:
            bridge = daemon.connect()
            footprint.settled(daemon)
            ours, bare = _measure(bridge, daemon.bundles, count)
            bridge.close()
    finally:
        mounts.unmount_tree(str(folder))
        folder.rmdir()
    calls_ms = milliseconds(bare)
    above_ms = milliseconds(ours) - calls_ms
    baseline = f"the bare system calls take {calls_ms:.2f} ms"
    return Figure(f"overlay of {LAYERS} layers, add and remove, above", 2.0, above_ms, "ms", baseline, count)


def _measure(bridge: Connection, base: Path, count: int) -> tuple[list[float], list[float]]:
    layers = [base / "layers" / str(number) for number in range(LAYERS)]
    for layer in layers:
        layer.mkdir(parents=True)
    ours, bare = [], []
    for number in range(count + 5):
        took = _over_the_bridge(bridge, base / "c1", layers), _by_calls(base / "c2", layers)
        if number >= 5:  # the first bring modules in
            ours.append(took[0])
            bare.append(took[1])
    return ours, bare


def _over_the_bridge(bridge: Connection, bundle: Path, layers: list[Path]) -> float:
    settings: dict[str, Any] = {
        "ContainerID": bundle.name,
        "ContainerRootPath": f"{bundle}/rootfs",
        "Layers": [{"Path": str(layer)} for layer in layers],
        "ScratchPath": f"{bundle}/scratch",
    }
    began = time.perf_counter()
    bridge.modify(NULL_ID, "CombinedLayers", settings=settings)
    bridge.modify(NULL_ID, "CombinedLayers", "Remove", {"ContainerRootPath": f"{bundle}/rootfs"})
    return time.perf_counter() - began


def _by_calls(bundle: Path, layers: list[Path]) -> float:
    upper, work, root = (f"{bundle}/{name}" for name in ("upper", "work", "rootfs"))
    data = f"lowerdir={':'.join(map(str, layers))},upperdir={upper},workdir={work}"
    began = time.perf_counter()
    for path in (upper, work, root):
        os.makedirs(path, exist_ok=True)
    mounts.mount("overlay", root, "overlay", 0, data)
    mounts.unmount(root)
    os.rmdir(root)
    return time.perf_counter() - began
