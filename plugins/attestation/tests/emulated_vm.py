"""The hardware of a confidential VM, mounted: for a test itself, and for a whole daemon.

``Hardware`` mounts devices and configfs in a folder; ``Roots`` of that folder are what the
implementation takes for /dev and /sys. Run as a program (in a mount namespace of its own)
this file puts the same over the real /dev, /sys/kernel and /proc/cpuinfo and becomes the
daemon: nothing of it is seen outside, where other daemons would take the machine for a
confidential VM.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

from emulated_drivers import Memory, Module, SnpDevice, TdxDevice, config_tree
from emulated_fs import File, Folder, Mounted

CPUINFO = "processor\t: 0\nflags\t\t: fpu vme hypervisor sev_snp\n"
#: What every program expects of /dev: name, major, minor.
NODES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))


class Hardware:
    """Devices by name, and the module behind configfs-tsm.

    ``configfs=False``: an older kernel. ``late``: a daemon starts before the drivers (``show``).
    """

    def __init__(
        self,
        where: Path,
        devices: dict[str, SnpDevice | TdxDevice] | None = None,
        module: Module | None = None,
        *,
        configfs: bool = True,
        late: bool = False,
    ) -> None:
        self.where = where
        self.late = late
        config, self.reports = config_tree(module)
        self.devices = devices or {}
        tree = Folder({"dev": Folder({name: _file(device) for name, device in self.devices.items()})})
        tree.entries["sys"] = Folder({"kernel": Folder({"config": config} if configfs else {})})
        where.mkdir(exist_ok=True)
        self._mounted = Mounted(where, tree)

    @property
    def dev(self) -> str:
        return f"{self.where}/dev"

    @property
    def sys(self) -> str:
        return f"{self.where}/sys"

    def close(self) -> None:
        self._mounted.close()

    def program(self, folder: Path, daemon: list[str]) -> list[str]:
        """The command line that runs a daemon with this hardware."""
        own = ["unshare", "--mount", "--propagation", "private", sys.executable, __file__]
        return [*own, str(folder), str(self.where), "" if self.late else ",".join(self.devices), *daemon]


def _file(device: SnpDevice | TdxDevice) -> File:
    return File(ioctl=lambda request, argument, pid: device.ioctl(request, argument, Memory(pid)))


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def show(pid: int, hardware: Path, name: str) -> None:
    """A driver is loaded: its device appears in the VM that this process is in."""
    script = 'touch "$2" && mount --bind "$1" "$2"'
    there = ["nsenter", "--target", str(pid), "--mount", "sh", "-ec", script, "-"]
    subprocess.run([*there, str(hardware / "dev" / name), f"/dev/{name}"], check=True)


def become_the_vm(folder: Path, hardware: Path, devices: list[str]) -> None:
    """Put the hardware where a kernel would show it. In a mount namespace of one's own only."""
    assert os.readlink("/proc/self/ns/mnt") != os.readlink(f"/proc/{os.getppid()}/ns/mnt")
    new = folder / "dev"
    new.mkdir()
    _mount("-t", "tmpfs", "dev", str(new))
    for name, major, minor in NODES:
        os.mknod(new / name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
        os.chmod(new / name, 0o666)
    for name in ("pts", "shm"):
        (new / name).mkdir()
    _mount("--bind", "/dev/pts", str(new / "pts"))
    os.symlink("pts/ptmx", new / "ptmx")
    os.symlink("/proc/self/fd", new / "fd")
    for name in devices:
        (new / name).touch()
        _mount("--bind", str(hardware / "dev" / name), str(new / name))
    _mount("--rbind", str(new), "/dev")
    _mount("-t", "tmpfs", "kernel", "/sys/kernel")
    if (hardware / "sys/kernel/config").exists():
        os.mkdir("/sys/kernel/config")
        _mount("--bind", str(hardware / "sys/kernel/config"), "/sys/kernel/config")
    (folder / "cpuinfo").write_text(CPUINFO)
    _mount("--bind", str(folder / "cpuinfo"), "/proc/cpuinfo")


if __name__ == "__main__":
    become_the_vm(Path(sys.argv[1]), Path(sys.argv[2]), [name for name in sys.argv[3].split(",") if name])
    os.execv(sys.argv[4], sys.argv[4:])
