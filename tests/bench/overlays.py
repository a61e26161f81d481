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
#: A machine's mood changes within a second, and how long a sleeping processor takes to wake with it.
_PARTS = 20


def added_and_removed(stance: Stance, count: int) -> Figure:
    """20 layers with a scratch on the container's own disk, one container after another.

    Milliseconds above other milliseconds, so what counts is the part of the time in which the
    machine was at its best by the bare calls; how it was in the others stands beside it. A part
    before them brings modules and caches in. The scratch lies on a tmpfs: unmounting an overlay
    writes its scratch's file system out, and how long a disk takes for that is not the question.
    """
    with stance.running() as daemon:
        bridge = stance.connect(daemon)
        footprint.settled(daemon)
        layers: Sequence[str] = getattr(bridge, "layers", ()) or sixty.make_layers(daemon.folder / "layers")
        parts = [_measure(bridge, daemon.folder, layers, count) for _ in range(1 + _PARTS)][1:]
        bridge.close()
    calls_ms, above_ms = min(parts)
    all_ms = sorted(above for _, above in parts)
    baseline = (
        f"the bare system calls take {calls_ms:.2f} ms; in {_PARTS} parts of {count} they took up to "
        f"{max(parts)[0]:.2f} ms, and uvmd {all_ms[0]:.2f} to {all_ms[-1]:.2f} ms above them"
    )
    what = f"overlay of {LAYERS} layers, add and remove, above"
    return Figure(what, 2.0, above_ms, "ms", baseline, _PARTS * count)


def _measure(bridge: Connection, folder: Path, layers: Sequence[str], count: int) -> tuple[float, float]:
    """Return the median of the bare calls, and by how much uvmd's is above it, in ms."""
    ours, bare = [], []
    for _ in range(count):
        ours.append(_over_the_bridge(bridge, layers))
        bare.append(_by_calls(folder / new_id(), layers))
    return milliseconds(bare), milliseconds(ours) - milliseconds(bare)


def _over_the_bridge(bridge: Connection, layers: Sequence[str]) -> float:
    container_id = new_id()  # a policy knows an id for ever
    bundle = bridge.host.bundle(container_id)
    root, scratch = f"{bundle}/rootfs", f"{bundle}/scratch/{container_id}"
    # What a host does to put its messages together, and to take answers apart, is not the question.
    settings = sixty.combined(container_id, root, scratch, layers)
    add = _prepared(bridge, modification("CombinedLayers", settings=settings))
    remove = _prepared(bridge, modification("CombinedLayers", "Remove", {"ContainerRootPath": root}))
    return _until_answered(bridge, *add) + _until_answered(bridge, *remove)


def _prepared(bridge: Connection, request: dict[str, Any]) -> tuple[int, bytes]:
    body = {"ContainerId": NULL_ID, "ActivityId": ZERO_GUID, "Request": request}
    return bridge.prepare(MODIFY, body)


def _until_answered(bridge: Connection, id_: int, frame: bytes) -> float:
    began = time.perf_counter()
    bridge.send_bytes(frame)
    assert bridge.hears(30), "no answer within 30 s"
    took = time.perf_counter() - began
    answer = bridge.answer(id_)
    assert not answer["Result"], answer
    return took


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
