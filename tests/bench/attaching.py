"""Devices that each come a while after the request that waits for them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import footprint
from report import Figure

from support import disks
from support.daemon import running
from support.host import MODIFY, NULL_ID, ZERO_GUID, Connection, code

DEVICES = 16
LATE_S = 0.2
#: Far from any real persistent memory.
FIRST = 900
LOOP_SET_FD, LOOP_CLR_FD, LOOP_CTL_GET_FREE = 0x4C00, 0x4C01, 0x4C82


class Memories:
    """Persistent memory by its nodes alone: loop devices under another name, which come when told."""

    def __init__(self, image: Path) -> None:
        self._image = image
        self._loops: list[str] = []

    def prepare(self) -> None:
        """Make what will come; nobody sees it under the name that is waited for."""
        for _ in range(DEVICES):
            with open("/dev/loop-control", "rb") as control:
                path = f"/dev/loop{fcntl.ioctl(control, LOOP_CTL_GET_FREE)}"
            with open(path, "rb") as loop, open(self._image, "rb") as backing:
                fcntl.ioctl(loop, LOOP_SET_FD, backing.fileno())
            self._loops.append(path)

    def come(self, number: int) -> None:
        """Let one appear, with the kernel's message."""
        os.mknod(f"/dev/pmem{FIRST + number}", 0o600 | stat.S_IFBLK, os.stat(self._loops[number]).st_rdev)
        Path(f"/sys/block/{os.path.basename(self._loops[number])}/uevent").write_text("add")

    def go(self) -> None:
        """Take the names away again."""
        for number in range(DEVICES):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"/dev/pmem{FIRST + number}")

    def close(self) -> None:
        """Take all of it away."""
        self.go()
        for path in self._loops:
            with open(path, "rb") as loop:
                fcntl.ioctl(loop, LOOP_CLR_FD)


@contextlib.contextmanager
def memories() -> Iterator[Memories]:
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "layer.img"
        disks.real_ext4(image, 2)
        made = Memories(image)
        try:
            made.prepare()
            yield made
        finally:
            made.close()


def send(bridge: Connection, request: str, base: Path, number: int) -> int:
    settings = {"DeviceNumber": FIRST + number, "MountPath": f"{base}/p{number}"}
    inner = {"RequestType": request, "ResourceType": "VPMemDevice", "Settings": settings}
    return bridge.send(MODIFY, {"ContainerId": NULL_ID, "ActivityId": ZERO_GUID, "Request": inner})


def done(bridge: Connection, *requests: int) -> None:
    for request in requests:
        answer = bridge.answer(request)
        assert code(answer) == "S_OK", answer


def late_devices(count: int) -> Figure:
    """All at once, beside one after another."""
    with running() as daemon, memories() as memory:
        bridge, base = daemon.connect(), daemon.bundles / "layers"
        footprint.settled(daemon)
        together, alone = [], []
        for _ in range(count + 1):
            began = time.perf_counter()
            for number in range(DEVICES):
                request = send(bridge, "Add", base, number)
                timer = threading.Timer(LATE_S, memory.come, [number])
                timer.start()
                done(bridge, request)
                timer.join()
            alone.append(time.perf_counter() - began)
            take_away(bridge, base, memory)
            began = time.perf_counter()
            requests = [send(bridge, "Add", base, number) for number in range(DEVICES)]
            time.sleep(LATE_S - (time.perf_counter() - began))
            for number in range(DEVICES):
                memory.come(number)
            done(bridge, *requests)
            together.append(time.perf_counter() - began)
            take_away(bridge, base, memory)
        bridge.close()
    # The first round brings code in.
    at_once, one_by_one = min(together[1:]), min(alone[1:])
    baseline = f"at once {at_once:.3f} s, one after another {one_by_one:.2f} s"
    what = f"{DEVICES} devices that come {LATE_S:g} s late, at once, to one by one"
    return Figure(what, 0.2, at_once / one_by_one, "x", baseline, count)


def take_away(bridge: Connection, base: Path, memory: Memories) -> None:
    done(bridge, *(send(bridge, "Remove", base, number) for number in range(DEVICES)))
    memory.go()
