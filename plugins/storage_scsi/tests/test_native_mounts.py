"""Real mounts of real loop devices (root), named as disks by a constructed tree.

Device-mapper needs a guest; everything else is here as it is there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from uvmd.api.testing import FakePlatform, Finished, Workbench, fake_environment
from uvmd.api.testing.faults import Faults
from uvmd.errors import Failed, InUse
from uvmd.linux import mounts
from uvmd_storage_scsi import plugin
from uvmd_storage_scsi.config import StorageScsiConfig
from uvmd_storage_scsi.virtual_disk import VirtualDisk

pytestmark = pytest.mark.root
LOOP_SET_FD, LOOP_CLR_FD, LOOP_CTL_GET_FREE = 0x4C00, 0x4C01, 0x4C82


class Disks:
    """Loop devices that a constructed sysfs shows as SCSI disks of host 2."""

    def __init__(self, folder: Path) -> None:
        self.sys = folder / "sys"
        self._folder = folder
        self._paths: list[str] = []

    def plug(self, lun: int, size: int = 16 << 20) -> str:
        """Make a disk; return its node."""
        image = self._folder / f"disk{lun}.img"
        with open(image, "wb") as file:
            file.truncate(size)
        with open("/dev/loop-control", "rb") as control:
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
        path = f"/dev/loop{number}"
        with open(path, "r+b", buffering=0) as loop, open(image, "r+b", buffering=0) as backing:
            fcntl.ioctl(loop, LOOP_SET_FD, backing.fileno())
        self._paths.append(path)
        (self.sys / "bus" / "scsi" / "devices" / f"2:0:0:{lun}" / "block" / f"loop{number}").mkdir(
            parents=True
        )
        return path

    def close(self) -> None:
        """Take all of them away; nobody may still hold one."""
        for path in self._paths:
            with open(path, "rb") as loop:
                fcntl.ioctl(loop, LOOP_CLR_FD)
            deadline = time.monotonic() + 10
            # Whoever looks at the device at this moment delays the end; our mount would for good.
            while self._is_backed(path) and time.monotonic() < deadline:
                time.sleep(0.02)
            assert not self._is_backed(path), f"somebody still holds {path}"

    @staticmethod
    def _is_backed(path: str) -> bool:
        return Path(f"/sys/block/{Path(path).name}/loop").exists()


def run(argv: Sequence[str], **_: Any) -> Finished:
    """As the monitor does."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    return Finished(done.returncode, done.stdout)


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Disks]:
    made = Disks(tmp_path)
    yield made
    # This test's own: others mount and unmount meanwhile.
    left = [mount.target for mount in mounts.mountinfo() if mount.target.startswith(f"{tmp_path}/")]
    for path in reversed(left):
        mounts.unmount(path, 2)
    made.close()
    assert not left, "a test left mounts behind"


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    def state() -> dict[str, object]:
        here = [mount for mount in mounts.mountinfo() if mount.target.startswith(str(tmp_path))]
        return {
            "mounts": [(mount.target, mount.device, mount.fstype, mount.read_only) for mount in here],
            "files": sorted(
                str(path) for path in (tmp_path / "run").rglob("*") if "lost+found" not in str(path)
            ),
        }

    return Faults(state)


@pytest.fixture
def bench(disks: Disks, faults: Faults) -> Workbench:
    environment = fake_environment(
        StorageScsiConfig(device_timeout_s=0.5),
        platform=FakePlatform(sys_root=str(disks.sys), scsi_hosts={0: 2}),
        run=faults.run(run),
    )
    handlers = {"MappedVirtualDisk": faults.watch(VirtualDisk(environment))}
    return Workbench(plugin.resource_types(), environment, handlers=handlers)


def scratch(path: Path, lun: int = 0) -> dict[str, Any]:
    return {"MountPath": str(path), "Lun": lun, "EnsureFilesystem": True, "Filesystem": "ext4"}


def test_a_scratch_is_formatted_mounted_and_its_content_survives_a_remount(
    bench: Workbench, disks: Disks, tmp_path: Path
) -> None:
    node, path = disks.plug(0), tmp_path / "run" / "scratch"
    bench.add("MappedVirtualDisk", scratch(path))
    (mount,) = mounts.mounted_at(str(path))
    assert (mount.source, mount.fstype, mount.read_only) == (node, "ext4", False)
    (path / "kept").write_text("here")
    bench.remove("MappedVirtualDisk", scratch(path))
    assert not path.parent.exists()
    layer = {"MountPath": str(path), "ReadOnly": True, "Options": ["ro", "rshared"]}
    bench.add("MappedVirtualDisk", layer)
    (mount,) = mounts.mounted_at(str(path))
    assert (path / "kept").read_text() == "here"
    assert mount.read_only
    assert mount.propagation[0].startswith("shared:")
    with pytest.raises(OSError, match="Read-only"):
        (path / "new").touch()
    bench.remove("MappedVirtualDisk", layer)


def test_one_disk_at_two_paths_is_one_file_system(bench: Workbench, disks: Disks, tmp_path: Path) -> None:
    disks.plug(0)
    first, second = tmp_path / "run" / "a", tmp_path / "run" / "b"
    for path in (first, second):
        bench.add("MappedVirtualDisk", scratch(path))
    (first / "file").touch()
    assert (second / "file").exists()
    for path in (first, second):
        bench.remove("MappedVirtualDisk", scratch(path))
    assert not (tmp_path / "run").exists()


def test_a_link_is_to_the_node_and_a_blank_disk_is_no_file_system(
    bench: Workbench, disks: Disks, tmp_path: Path
) -> None:
    node, path = disks.plug(0), tmp_path / "run" / "disk"
    with pytest.raises(Failed, match=f"could not get device filesystem type of {node}"):
        bench.add("MappedVirtualDisk", {"MountPath": str(path)})
    bench.add("MappedVirtualDisk", {"MountPath": str(path), "BlockDev": True})
    assert os.readlink(path) == node
    bench.remove("MappedVirtualDisk", {"MountPath": str(path), "BlockDev": True})
    assert not path.parent.exists()


def test_a_full_scratch_is_still_removed(bench: Workbench, disks: Disks, tmp_path: Path) -> None:
    disks.plug(0)
    path = tmp_path / "run" / "scratch"
    bench.add("MappedVirtualDisk", scratch(path))
    with pytest.raises(OSError) as caught, open(path / "all", "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))
    assert caught.value.errno == errno.ENOSPC
    bench.remove("MappedVirtualDisk", scratch(path))
    assert not path.parent.exists()


def test_a_busy_disk_stays_and_can_be_removed_later(bench: Workbench, disks: Disks, tmp_path: Path) -> None:
    disks.plug(0)
    path = tmp_path / "run" / "scratch"
    bench.add("MappedVirtualDisk", scratch(path))
    with (
        open(path / "open", "wb"),
        pytest.raises(Failed, match=r"unmount failed: .*: device or resource busy"),
    ):
        bench.remove("MappedVirtualDisk", scratch(path))
    bench.remove("MappedVirtualDisk", scratch(path))


def test_a_disk_that_is_written_to_is_not_formatted(bench: Workbench, disks: Disks, tmp_path: Path) -> None:
    node = disks.plug(0)
    holder = os.open(node, os.O_RDWR | os.O_EXCL)
    try:
        with pytest.raises(InUse, match=r"is in use, after 0\.5 s") as caught:
            bench.add("MappedVirtualDisk", scratch(tmp_path / "run" / "scratch"))
        assert node in str(caught.value)
    finally:
        os.close(holder)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["scratch", "link"])
def test_every_step_on_a_real_kernel_can_fail(
    bench: Workbench, disks: Disks, faults: Faults, tmp_path: Path, kind: str
) -> None:
    node = disks.plug(0)
    settings = scratch(tmp_path / "run" / "m0")
    if kind == "link":
        settings = {"MountPath": str(tmp_path / "run" / "m0"), "BlockDev": True}

    def blank() -> None:
        fd = os.open(node, os.O_RDWR)
        os.pwrite(fd, bytes(65536), 0)
        os.close(fd)

    with faults.installed():
        steps = faults.each_step(
            blank,
            lambda: bench.add("MappedVirtualDisk", settings),
            lambda: bench.remove("MappedVirtualDisk", settings),
        )
    assert len(steps) > 10
    assert (bench.gate.degraded, bench.mounted()) == (None, [])
