"""One fake kernel: mounts, device-mapper, block devices and the tools that write on them.

It stands behind the functions of ``uvmd.linux`` that change a machine, and keeps what they
made where a test can look: directories and symlinks are real ones below the test's folder,
device nodes are files, everything else is in memory. What it answers is what a kernel was
seen to answer; the tests in the guest hold the two against each other.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from uvmd.api.testing.fake_mapper import FakeMapper, Number, refuse
from uvmd.api.testing.fake_tools import FakeTools
from uvmd.api.testing.fakes import FakePlatform
from uvmd.linux import block, devmapper, mounts, syscalls
from uvmd.linux.mounts import MountInfo

# The system's own: what a test puts in their place is not this kernel's business.
_readlink, _stat, _lexists = os.readlink, os.stat, os.path.lexists

_RDONLY, _BIND, _PROPAGATION, _REC = 1, 4096, 0b1111 << 17, 16384


class Patch(Protocol):
    """``pytest.MonkeyPatch``, or what does the same."""

    def setattr(self, target: Any, name: str, value: Any, /) -> None: ...


class FakeMount(NamedTuple):
    """A mount: as it was asked for, with the path that the target stood for."""

    source: str
    target: str
    fstype: str
    flags: int
    data: str
    device: Number


class FakeKernel:
    """See the module. ``root`` is the test's folder; install() puts it in the kernel's place."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.mounts: list[FakeMount] = []
        #: Block devices by path.
        self.numbers: dict[str, Number] = {}
        #: Paths whose mounts are in use.
        self.busy: set[str] = set()
        #: What was changed, in order: ``mount PATH``, ``dm 3 NAME``, ``mkfs.xfs PATH``.
        self.log: list[str] = []
        self.dm = FakeMapper(self.log, self.numbers, self._mounted_devices)
        self.run = FakeTools(self)
        self.dev, self.sys = root / "dev", root / "sys"
        self.mapper = self.dev / "mapper"
        self.mapper.mkdir(parents=True)
        (self.mapper / "control").touch()
        (self.sys / "bus" / "scsi" / "devices").mkdir(parents=True)

    def install(self, patch: Patch) -> None:
        """Stand in for the kernel until ``patch`` is undone."""
        patch.setattr(syscalls, "mount", self._mount)
        patch.setattr(syscalls, "umount", self._umount)
        patch.setattr(syscalls, "ioctl", self.dm.ioctl)
        patch.setattr(mounts, "mountinfo", self._mountinfo)
        patch.setattr(block, "device_number", self._device_number)
        patch.setattr(devmapper, "DIRECTORY", str(self.mapper))
        patch.setattr(os, "mknod", self._mknod)
        patch.setattr(os, "unlink", self._unlink(os.unlink))

    def platform(self, scsi_hosts: Mapping[int, int] | None = None) -> FakePlatform:
        """Two SCSI controllers, which are the hosts 2 and 3, below this kernel's roots."""
        hosts = {0: 2, 1: 3} if scsi_hosts is None else scsi_hosts
        return FakePlatform(sys_root=str(self.sys), dev_root=str(self.dev), scsi_hosts=hosts)

    # What is plugged in

    def add_device(self, name: str, content: bytes = b"", size: int = 1 << 20) -> Path:
        """Make a block device ``/dev/NAME``; again, with this content."""
        path = self.dev / name
        with open(path, "wb") as file:
            file.write(content)
            file.truncate(max(size, len(content)))
        self.numbers.setdefault(str(path), (8, 16 * len(self.numbers)))
        return path

    def add_disk(
        self, host: int, lun: int, name: str, content: bytes = b"", partitions: Sequence[int] = ()
    ) -> Path:
        """Make a SCSI disk, and partitions with the same content."""
        path = self.add_device(name, content)
        folder = self.scsi(host, lun) / "block" / name
        folder.mkdir(parents=True)
        (self.scsi(host, lun) / "delete").touch()
        for number in partitions:
            (folder / f"{name}{number}").mkdir()
            self.add_device(f"{name}{number}", content)
        return path

    def scsi(self, host: int, lun: int) -> Path:
        """The folder of a SCSI device in sysfs."""
        return self.sys / "bus" / "scsi" / "devices" / f"{host}:0:0:{lun}"

    # What a test compares

    def state(self) -> dict[str, Any]:
        """Mounts, devices and names below the test's folder; equal before and after, or something is left."""
        return {
            "mounts": list(self.mounts),
            "devices": {name: device.active for name, device in self.dm.devices.items()},
            "files": sorted(
                str(path.relative_to(self.root)) + ("@" if path.is_symlink() else "")
                for path in self.root.rglob("*")
            ),
        }

    def mounted(self, path: str | Path) -> FakeMount:
        """The topmost mount at a path."""
        return [mount for mount in self.mounts if mount.target == str(path)][-1]

    # Mounts

    def _mounted_devices(self) -> list[tuple[Number, bool]]:
        return [(mount.device, not mount.flags & _RDONLY) for mount in self.mounts]

    @staticmethod
    def _real(path: str) -> str:
        """The path that one by a descriptor stands for."""
        if not path.startswith("/proc/self/fd/"):
            return path
        fd, slash, rest = path.removeprefix("/proc/self/fd/").partition("/")
        return _readlink(f"/proc/self/fd/{fd}") + slash + rest

    def _mount(self, source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
        source, target = self._real(source), self._real(target)
        if not _lexists(target):
            raise refuse(errno.ENOENT, target)
        if flags & _PROPAGATION:
            if not any(mount.target == target for mount in self.mounts):
                raise refuse(errno.EINVAL, target)
            self.log.append(f"propagate {flags & ~_REC:x} {target}")
            return
        device = (0, 50 + len(self.mounts))
        if not flags & _BIND and fstype in ("ext4", "xfs", ""):
            device = self._require_mountable(source, target, fstype)
        self.log.append(f"mount {target}")
        self.mounts.append(FakeMount(source, target, fstype, flags, data, device))

    def _require_mountable(self, source: str, target: str, fstype: str) -> Number:
        if not os.path.exists(source):
            raise refuse(errno.ENOENT, target)
        if source not in self.numbers:
            raise refuse(errno.ENOTBLK, target)
        if not fstype:
            raise refuse(errno.ENODEV, target)
        if self.dm.holders(self.numbers[source]):
            raise refuse(errno.EBUSY, target)
        head = self.head(source)
        if not (head[1080:1082] == b"\x53\xef" if fstype == "ext4" else head[:4] == b"XFSB"):
            raise refuse(errno.EINVAL, target)
        return self.numbers[source]

    def _umount(self, target: str, flags: int = 8) -> None:
        target = self._real(target)
        if not _lexists(target):
            raise refuse(errno.ENOENT, target)
        at = [index for index, mount in enumerate(self.mounts) if mount.target == target]
        if not at:
            raise refuse(errno.EINVAL, target)
        if target in self.busy:
            raise refuse(errno.EBUSY, target)
        self.log.append(f"umount {target}")
        self.dm.closed(self.mounts.pop(at[-1]).device)

    def _mountinfo(self) -> list[MountInfo]:
        return [
            MountInfo(
                40 + index,
                1,
                mount.device,
                "/",
                mount.target,
                "ro" if mount.flags & _RDONLY else "rw",
                (),
                mount.fstype,
                mount.source,
                mount.data,
            )
            for index, mount in enumerate(self.mounts)
        ]

    # Devices

    def _device_number(self, device: int | str) -> Number:
        path = _readlink(f"/proc/self/fd/{device}") if isinstance(device, int) else device
        if path not in self.numbers:
            _stat(path)
            raise refuse(errno.ENOTBLK, path)
        return self.numbers[path]

    def _mknod(self, path: str, mode: int = 0o600, device: int = 0) -> None:
        assert stat.S_ISBLK(mode), "only nodes of block devices are made"
        with open(path, "xb"):
            self.numbers[path] = (os.major(device), os.minor(device))

    def _unlink(self, real: Any) -> Any:
        def unlink(path: Any, *, dir_fd: int | None = None) -> None:
            real(path, dir_fd=dir_fd)
            if dir_fd is None:
                self.numbers.pop(str(path), None)

        return unlink

    def head(self, path: str) -> bytes:
        """The first bytes of what a device shows."""
        file, offset = self.content(path)
        return file.read_bytes()[offset : offset + 0x11000]

    def content(self, path: str) -> tuple[Path, int]:
        """The file that holds what a device shows, and where; an encrypted one has its own."""
        number, offset = self.numbers[path], 0
        while (device := self.dm.at(number)) is not None and device.active:
            if device.active[0].type == "crypt" or device.below is None:
                break
            if device.active[0].type == "linear":
                offset += int(device.active[0].params.split(" ")[1]) * 512
            number = device.below
        return Path(next(path for path, one in self.numbers.items() if one == number)), offset
