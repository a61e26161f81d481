"""An overlay added and removed over the bridge, beside the system calls that it takes."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import footprint
import sixty
from report import Figure, milliseconds
from stances import Stance

from support.containers import new_id
from support.host import MODIFY, NULL_ID, ZERO_GUID, Connection, modification
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
    # What a host does to put its messages together is not the question.
    settings = sixty.combined(container_id, root, scratch, layers)
    add = _prepared(bridge, modification("CombinedLayers", settings=settings))
    remove = _prepared(bridge, modification("CombinedLayers", "Remove", {"ContainerRootPath": root}))
    began = time.perf_counter()
    answers = [_answered(bridge, *request) for request in (add, remove)]
    took = time.perf_counter() - began
    for answer in answers:
        assert not answer["Result"], answer
    return took


def _prepared(bridge: Connection, request: dict[str, Any]) -> tuple[int, bytes]:
    body = {"ContainerId": NULL_ID, "ActivityId": ZERO_GUID, "Request": request}
    return bridge.prepare(MODIFY, body)


def _answered(bridge: Connection, id_: int, frame: bytes) -> dict[str, Any]:
    bridge.send_bytes(frame)
    return bridge.answer(id_)


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
