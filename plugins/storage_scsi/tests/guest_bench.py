"""Figures of SCSI disks in the guest, for `make guest-bench`."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from report import Figure

from guest.harness.guest import Guest
from support import disks, machine

INSIDE = machine.ROOT / "tests" / "guest" / "inside" / "storage.py"
LAYER = {"MountPath": "/run/storm/m0", "Lun": 1, "ReadOnly": True, "Options": ["ro"]}


def _inside(source: str, name: str, arguments: list[Any]) -> Any:
    """Run one function of the file; runs in the guest."""
    namespace: dict[str, Any] = {"__name__": "inside_storage"}
    exec(compile(source, "inside/storage.py", "exec"), namespace)
    return namespace[name](*arguments)


def figures(guest: Guest) -> Iterable[Figure]:
    """The figures of the plugin."""
    with tempfile.TemporaryDirectory() as folder:
        yield verity_against_bare(guest, Path(folder), 25)


def verity_against_bare(guest: Guest, folder: Path, count: int) -> Figure:
    """A layer with its hash tree, beside the calls that it takes at the least."""
    image = folder / "layer.img"
    image.write_bytes(disks.layer(disks.real_ext4(image, 64)))
    drive = guest.add_disk(image, lun=1, read_only=True)
    arguments = [LAYER, drive.wait(), count]
    ours, bare = guest.call(
        _inside, INSIDE.read_text(), "layer_times", arguments, fork=True, timeout_s=60 + count * 10
    )
    drive.remove()
    ours_ms, bare_ms = (statistics.median(times) * 1000 for times in (ours, bare))
    baseline = f"bare ioctls and mount {bare_ms:.1f} ms, through the pipeline {ours_ms:.1f} ms"
    return Figure(
        "MappedVirtualDisk add with dm-verity, to bare", 1.5, ours_ms / bare_ms, "x", baseline, count
    )
