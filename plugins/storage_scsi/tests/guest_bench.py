"""Figures of SCSI disks in the guest, for `make guest-bench`."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from report import Figure

from guest.harness.guest import Guest
from support import disks, machine
from support.host import MODIFY, NULL_ID, ZERO_GUID, code
from uvmd.api.testing.guest.devices import Disk

INSIDE = machine.ROOT / "tests" / "guest" / "inside" / "storage.py"
LATE, LATE_S = 16, 0.2
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
        yield late_disks(guest, Path(folder), 3)


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


class LateDisks:
    """Disks that are plugged a while after the host has asked for them."""

    def __init__(self, guest: Guest, image: Path) -> None:
        self._guest = guest
        self._image = image
        self._plugged: list[Disk] = []

    def ask(self, request: str, number: int) -> int:
        settings = {"MountPath": f"/run/mounts/scsi/m{number}", "Lun": 1 + number, "ReadOnly": True}
        inner = {"RequestType": request, "ResourceType": "MappedVirtualDisk", "Settings": settings}
        return self._guest.bridge.send(
            MODIFY, {"ContainerId": NULL_ID, "ActivityId": ZERO_GUID, "Request": inner}
        )

    def done(self, *requests: int) -> None:
        for request in requests:
            answer = self._guest.bridge.answer(request)
            assert code(answer) == "S_OK", answer

    def plug(self, number: int) -> None:
        self._plugged.append(self._guest.add_disk(self._image, lun=1 + number, read_only=True))

    def take_away(self) -> None:
        self.done(*(self.ask("Remove", number) for number in range(LATE)))
        for disk in self._plugged:
            disk.remove()
        self._plugged.clear()

    def one_by_one(self) -> float:
        began = time.perf_counter()
        for number in range(LATE):
            request = self.ask("Add", number)
            time.sleep(LATE_S)
            self.plug(number)
            self.done(request)
        return time.perf_counter() - began

    def at_once(self) -> float:
        began = time.perf_counter()
        requests = [self.ask("Add", number) for number in range(LATE)]
        time.sleep(max(0.0, LATE_S - (time.perf_counter() - began)))
        for number in range(LATE):
            self.plug(number)
            # QEMU has room for eight events that the guest has not read.
            time.sleep(0.01)
        self.done(*requests)
        return time.perf_counter() - began


def late_disks(guest: Guest, folder: Path, count: int) -> Figure:
    """All at once, beside one after another.

    Shown without the bar, which an emulated guest cannot meet: its one processor brings the
    disks up one after another, 40 ms each without uvmd, and the bar leaves 34 ms. `make bench`
    has the bar, natively.
    """
    image = folder / "late.img"
    disks.real_ext4(image, 2)
    late = LateDisks(guest, image)
    alone, together = [], []
    for _ in range(count + 1):
        alone.append(late.one_by_one())
        late.take_away()
        together.append(late.at_once())
        late.take_away()
    # The first round brings code in.
    one_by_one, at_once = (statistics.median(times[1:]) for times in (alone, together))
    baseline = f"at once {at_once:.2f} s, one by one {one_by_one:.2f} s"
    what = f"{LATE} disks that come {LATE_S:g} s late, at once, to one by one"
    return Figure(what, None, at_once / one_by_one, "x", baseline, count)
