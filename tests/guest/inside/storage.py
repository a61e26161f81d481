"""Runs in the guest, on real disks: handlers in a VM of their own, strict or made to fail.

The whole file is sent; what a test calls takes and returns JSON.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

for _path in ("/opt/uvmd/code", "/opt/uvmd/lib/python3.11/site-packages"):
    if _path not in sys.path:
        sys.path.insert(0, _path)

from uvmd.api import Handler  # noqa: E402
from uvmd.api.testing import Finished, Workbench, fake_environment  # noqa: E402
from uvmd.api.testing.faults import Faults  # noqa: E402
from uvmd.linux import devmapper, mounts  # noqa: E402
from uvmd.linux.platform import find_platform  # noqa: E402

ROOM = "/run/storm"
DISK, PMEM, SHARE = "MappedVirtualDisk", "VPMemDevice", "MappedDirectory"


def run(argv: list[str], *, deadline: float, fds: tuple[int, ...] = (), **_: Any) -> Finished:
    """As the monitor does: descriptors from 3 on, killed at the deadline."""
    moved = [os.dup2(fd, 100 + number) for number, fd in enumerate(fds)]
    script = " ".join(f"{3 + number}<&{fd}" for number, fd in enumerate(moved))
    try:
        done = subprocess.run(
            ["/bin/bash", "-c", f'exec "$@" {script}', "run", *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=moved,
            timeout=max(0.1, deadline - time.monotonic()),
        )
    except subprocess.TimeoutExpired as error:
        return Finished(-9, error.output or b"", timed_out=True)
    finally:
        for fd in moved:
            os.close(fd)
    return Finished(done.returncode, done.stdout)


def dial(port: int, deadline: float) -> int:
    """As the monitor does."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(max(0.1, deadline - time.monotonic()))
        connection.connect(f"/run/testbed/host_{port}")
        connection.settimeout(None)
        return connection.detach()


def state() -> dict[str, Any]:
    """What must be as before."""
    here = [mount for mount in mounts.mountinfo() if mount.target.startswith(f"{ROOM}/")]
    mounted = {mount.target for mount in here}
    files = []
    for folder, folders, names in os.walk(ROOM):
        files += [f"{folder}/{name}" for name in (*folders, *names)]
        folders[:] = [name for name in folders if f"{folder}/{name}" not in mounted]
    return {
        "mounts": [(mount.target, mount.source, mount.fstype, mount.read_only) for mount in here],
        "devices": {
            name: [list(masked(target)) for target in devmapper.table(name)] for name in devmapper.names()
        },
        "nodes": sorted(os.listdir(devmapper.DIRECTORY)) if os.path.isdir(devmapper.DIRECTORY) else [],
        "files": sorted(files),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


def masked(target: devmapper.Target) -> devmapper.Target:
    """Without the name of a key, which is another one each time."""
    return target._replace(params="") if target.type == "crypt" else target


def handlers(faults: Faults) -> tuple[list[Any], dict[str, Handler]]:
    """Types and handlers of the plugins, for the real platform."""
    from uvmd_plan9 import plugin as plan9
    from uvmd_plan9.config import Plan9Config
    from uvmd_plan9.directory import MappedDirectory
    from uvmd_storage_pmem import plugin as pmem
    from uvmd_storage_pmem.config import StoragePmemConfig
    from uvmd_storage_pmem.vpmem import VPMem
    from uvmd_storage_scsi import plugin as scsi
    from uvmd_storage_scsi.config import StorageScsiConfig
    from uvmd_storage_scsi.virtual_disk import VirtualDisk

    def environment(config: Any) -> Any:
        dialled = faults.dial(dial)
        return fake_environment(config, platform=find_platform(), run=faults.run(run), dial=dialled)

    scsi_config = StorageScsiConfig(device_timeout_s=20.0, mount_timeout_s=10.0)
    pmem_config = StoragePmemConfig(device_timeout_s=20.0, mount_timeout_s=10.0)
    made: dict[str, Handler] = {
        DISK: faults.watch(VirtualDisk(environment(scsi_config))),
        PMEM: faults.watch(VPMem(environment(pmem_config))),
        SHARE: faults.watch(MappedDirectory(environment(Plan9Config()))),
    }
    declared = (type_ for plugin in (scsi, pmem, plan9) for type_ in plugin.resource_types())
    return [type_ for type_ in declared if type_.name in made], made


def bench(faults: Faults) -> Workbench:
    """A VM."""
    types, made = handlers(faults)
    return Workbench(types, handlers=made)


def strict_life(resource: str, settings: dict[str, Any], read: str) -> dict[str, Any]:
    """Add, look, and remove in a strict VM; what was asked, what was seen, what is left."""
    vm, before = bench(Faults(state)), state()
    enforcer = vm.be_strict()
    vm.add(resource, settings)
    during = state()
    with open(read, encoding="utf-8") as file:
        text = file.read()
    vm.remove(resource, settings)
    return {"asked": enforcer.asked, "during": during, "text": text, "clean": state() == before}


def storm(
    resource: str, settings: dict[str, Any], device: str, strict: bool, only: list[str], blank: bool
) -> dict[str, Any]:
    """Have each step of an Add fail on the real kernel; those that ``only`` names if it names some."""
    faults = Faults(state)
    vm = bench(faults)
    if strict:
        vm.be_strict()

    def prepare() -> None:
        if blank:
            fd = os.open(device, os.O_WRONLY)
            os.pwrite(fd, bytes(1 << 20), 0)
            os.close(fd)

    with faults.installed():
        steps = faults.each_step(
            prepare,
            lambda: vm.add(resource, settings),
            lambda: vm.remove(resource, settings),
            (lambda step: any(word in step for word in only)) if only else None,
        )
    return {"steps": steps, "marked": vm.gate.inconsistent or vm.gate.degraded, "left": vm.mounted()}


def format_ext4(node: str) -> None:
    """Make a file system."""
    subprocess.run(["mkfs.ext4", "-q", "-F", node], check=True, stdin=subprocess.DEVNULL)


def kernel_answers(
    device: str, folder: str, format_ext4: Callable[[str], object] = format_ext4
) -> dict[str, str]:
    """What a kernel says to right and wrong calls, in order; the fake one must say the same."""
    from uvmd.linux.devmapper import Target

    answers: dict[str, str] = {}

    def note(what: str, function: Any, *arguments: Any) -> None:
        try:
            result = function(*arguments)
            answers[what] = "fine" if result is None else str(result).replace(devmapper.DIRECTORY, "MAPPER")
        except OSError as error:
            answers[what] = errno.errorcode[error.errno or 0]

    def raw(command: int, name: str, flags: int = 0, targets: Any = ()) -> None:
        with devmapper._Control() as control:
            control(command, name, flags, targets)

    def names_at_the_end() -> list[str]:
        # What was left to the kernel goes a moment after its last user.
        deadline = time.monotonic() + 10
        while (names := devmapper.names()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return names

    whole = [devmapper.linear(device, 0, 1 << 20)]
    node = f"{devmapper.DIRECTORY}/one"
    digest = "ab" * 32
    os.makedirs(folder)
    note("create", raw, 3, "one")
    note("create again", raw, 3, "one")
    note("load a device that is not there", raw, 9, "one", 1, [devmapper.linear("/dev/sdzz", 0, 4096)])
    note(
        "load verity without a salt",
        raw,
        9,
        "one",
        1,
        [Target(0, 8, "verity", f"1 {device} {device} 4096 4096 1 2 sha256 {digest} ")],
    )
    note("load", raw, 9, "one", 1, whole)
    note("resume", raw, 6, "one")
    note("remove", raw, 4, "one")
    note("remove again", raw, 4, "one")
    note("status of nothing", devmapper.status, "one")
    note("remove nothing", devmapper.remove, "one")
    note("make", devmapper.create, "one", whole, False)
    note("use again", devmapper.ensure, "one", whole)
    note("below another", devmapper.create, "two", [devmapper.linear(node, 0, 4096)])
    note("mount what is no file system", mounts.mount, node, folder, "ext4")
    note("remove what is in use", raw, 4, "one")
    note("remove the upper one", devmapper.remove, "two")
    note("names", devmapper.names)
    format_ext4(node)
    note("mount", mounts.mount, node, folder, "ext4", 1, "noload")
    note("mount at nothing", mounts.mount, node, f"{folder}/nothing", "ext4", 1)
    note("remove what is mounted", raw, 4, "one")
    note("leave its removal to the kernel", lambda: devmapper.remove("one", 0.0, later=True))
    note("unmount", mounts.unmount, folder)
    note("unmount again", mounts.unmount, folder)
    note("unmount nothing", mounts.unmount, f"{folder}/nothing")
    note("names at the end", names_at_the_end)
    os.rmdir(folder)
    return answers


def bare_layer(device: str, path: str) -> float:
    """Seconds for the least that mounts a layer through dm-verity: read its table, three ioctls, mount."""
    import fcntl
    import hashlib
    import stat
    import struct

    header, target = struct.Struct("=3IIIIiIIIQ128s129s7x"), struct.Struct("=QQiI16s")
    from uvmd.linux import syscalls

    def dm(command: int, flags: int = 0, records: bytes = b"") -> int:
        size, start = 312 + len(records), 312 if records else 0
        words = (4, 0, 0, size, start, 1 if records else 0, 0, flags, 0x4F0000, 0, 0, b"bare", b"")
        data = bytearray(header.pack(*words) + records)
        fcntl.ioctl(control, 0xC138FD00 | command, data, True)
        return int(header.unpack_from(data)[10])

    began = time.perf_counter()
    disk = os.open(device, os.O_RDONLY)
    (blocks,) = struct.unpack_from("<I", os.pread(disk, 1024, 1024), 4)
    tail = os.pread(disk, 8192, blocks * 4096)
    digest = hashlib.sha256(tail[88:120] + tail[4096:]).hexdigest()
    text = (
        f"1 {device} {device} 4096 4096 {blocks} {blocks + 1} sha256 {digest} {tail[88:120].hex()}".encode()
    )
    text += bytes(8 - len(text) % 8)
    control = os.open("/dev/mapper/control", os.O_RDWR)
    number = dm(3)
    dm(9, 1, target.pack(0, blocks * 8, 0, 40 + len(text), b"verity") + text)
    dm(6)
    node = "/dev/mapper/bare"
    rdev = os.makedev((number >> 8) & 0xFFF, (number & 0xFF) | ((number >> 12) & 0xFFF00))
    os.mknod(node, 0o600 | stat.S_IFBLK, rdev)
    os.makedirs(path, 0o700)
    syscalls.mount(node, path, "ext4", 1)
    took = time.perf_counter() - began
    syscalls.umount(path)
    os.rmdir(path)
    dm(4)
    os.unlink(node)
    os.close(control)
    os.close(disk)
    return took


def layer_times(settings: dict[str, Any], device: str, count: int) -> list[list[float]]:
    """Seconds of an Add through the whole pipeline, its files included, and of the bare steps; in turns.

    Ahead of every other process: udev and systemd look at each new device and mount, and
    would have the only CPU when the bare steps are over and ours not quite.
    """
    from uvmd.host.state import FileState
    from uvmd_storage_scsi import plugin
    from uvmd_storage_scsi.config import StorageScsiConfig
    from uvmd_storage_scsi.virtual_disk import VirtualDisk

    os.makedirs("/run/bench", 0o700)
    state = FileState("/run/bench/state.json")
    environment = fake_environment(StorageScsiConfig(verity="always"), platform=find_platform(), state=state)
    handlers = {DISK: VirtualDisk(environment)}
    vm = Workbench(plugin.resource_types(), environment, handlers=handlers, records="/run/bench/records.json")
    times: list[list[float]] = [[], []]
    os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    for number in range(count + 2):
        # udev looks at what came and went.
        subprocess.run(["udevadm", "settle"], stdin=subprocess.DEVNULL)
        began = time.perf_counter()
        vm.add(DISK, settings)
        took = time.perf_counter() - began
        vm.remove(DISK, settings)
        subprocess.run(["udevadm", "settle"], stdin=subprocess.DEVNULL)
        bare = bare_layer(device, f"{ROOM}/bare")
        if number >= 2:  # the first ones bring code and modules in
            times[0].append(took)
            times[1].append(bare)
    return times
