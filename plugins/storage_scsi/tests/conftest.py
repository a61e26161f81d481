"""A VM with the plugin, on the fake kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from support.disks import ext4, layer
from uvmd.api.testing import Workbench, fake_environment
from uvmd.api.testing.faults import Faults
from uvmd.api.testing.kernel import FakeKernel
from uvmd_storage_scsi import plugin
from uvmd_storage_scsi.config import StorageScsiConfig
from uvmd_storage_scsi.unplug import ScsiDevice
from uvmd_storage_scsi.virtual_disk import VirtualDisk

DISK, DEVICE = "MappedVirtualDisk", "SCSIDevice"


class Bench(Workbench):
    """A workbench whose disks are the fake kernel's, with the settings of each case at hand."""

    def __init__(
        self, kernel: FakeKernel, faults: Faults, state: Any = None, records: str = "", **config: Any
    ) -> None:
        parts = {"state": state} if state is not None else {}
        environment = fake_environment(
            StorageScsiConfig(**{"device_timeout_s": 0.01, "mount_timeout_s": 0.01, **config}),
            platform=kernel.platform(),
            run=faults.run(kernel.run),
            **parts,
        )
        super().__init__(
            plugin.resource_types(),
            environment,
            handlers={
                DISK: faults.watch(VirtualDisk(environment)),
                DEVICE: faults.watch(ScsiDevice(environment)),
            },
            records=records,
        )
        self.kernel = kernel
        self.faults = faults

    def add_disk(self, **settings: Any) -> None:
        """Add a MappedVirtualDisk."""
        self.add(DISK, settings)

    def remove_disk(self, **settings: Any) -> None:
        """Remove a MappedVirtualDisk."""
        self.remove(DISK, settings)

    def unplug(self, **settings: Any) -> None:
        """Remove a SCSIDevice."""
        self.remove(DEVICE, settings)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    """A kernel with disks: 2:0:0:0 is a layer, 2:0:0:1 blank, 3:0:0:0 has two partitions."""
    made = FakeKernel(tmp_path)
    made.install(monkeypatch)
    made.add_disk(2, 0, "sdc", layer(ext4(8, journal=True)))
    made.add_disk(2, 1, "sda")
    made.add_disk(3, 0, "sdb", layer(ext4(4)), partitions=[1, 2])
    return made


@pytest.fixture
def faults(kernel: FakeKernel) -> Faults:
    """Counts the steps of each apply."""
    return Faults(kernel.state)


@pytest.fixture
def bench(kernel: FakeKernel, faults: Faults) -> Bench:
    """The plugin with its default settings, and short waits."""
    return Bench(kernel, faults)


@pytest.fixture
def cases(tmp_path: Path) -> Mapping[str, Mapping[str, Any]]:
    """The settings of each kind of disk."""
    path = str(tmp_path / "run" / "mounts" / "m0")
    return {
        "layer": {"MountPath": path, "ReadOnly": True, "Options": ["ro"]},
        "partition": {
            "MountPath": path,
            "Controller": 1,
            "Partition": 2,
            "ReadOnly": True,
            "Options": ["ro"],
        },
        "scratch": {"MountPath": path, "Lun": 1, "EnsureFilesystem": True, "Filesystem": "ext4"},
        "xfs": {"MountPath": path, "Lun": 1, "EnsureFilesystem": True, "Filesystem": "xfs"},
        "encrypted": {
            "MountPath": path,
            "Lun": 1,
            "EnsureFilesystem": True,
            "Filesystem": "xfs",
            "Encrypted": True,
        },
        "link": {"MountPath": path, "Lun": 1, "BlockDev": True},
        "read-only link": {"MountPath": path, "BlockDev": True, "ReadOnly": True, "Options": ["ro"]},
    }


@pytest.fixture
def another(kernel: FakeKernel, faults: Faults) -> Callable[..., Bench]:
    """Make another VM on the same kernel: other settings, or a daemon that was started anew."""
    return lambda *state, **config: Bench(kernel, faults, *state, **config)
