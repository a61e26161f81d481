"""The kinds of guest, and the QEMU command line of each.

A snapshot can only be restored by the same devices in the same order, so what a guest has
from the start is decided here and nowhere else. Storage and network are added later, by
hot-plugging.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

QEMU = "qemu-system-x86_64"
QEMU_PACKAGE = "qemu-system-x86"
MEMORY_MIB = 1024
#: `virtio-scsi` controllers; uvmd's virtio platform counts them in this order.
CONTROLLERS = ("sc0", "sc1")
#: Empty PCI ports that take hot-plugged devices.
PORTS = ("rp1", "rp2", "rp3", "rp4")
#: Channels to the guest, in the order of their devices.
CHANNELS = ("helper", "mirror")


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of guest; each has a snapshot of its own."""

    name: str
    kernel_arguments: tuple[str, ...] = ()
    nvdimm: bool = False

    @property
    def cgroups(self) -> str:
        return "v1" if self.name == "v1" else "v2"


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("v2"),
        Profile(
            "v1",
            (
                "systemd.unified_cgroup_hierarchy=0",
                "systemd.legacy_systemd_cgroup_controller=1",
            ),
        ),
        # The memory layout differs, so it cannot share the other's snapshot.
        Profile("nvdimm", nvdimm=True),
    )
}


@dataclass(frozen=True, slots=True)
class Files:
    """Where one QEMU finds its parts.

    Attributes:
        folder: its own, for sockets and logs; a short path, unix sockets end at 107 bytes.
        ram: the guest's memory.
        shared: writes go to the file (to be saved), not to a private copy.
        more: further arguments of QEMU: disks that are there from the start.
    """

    folder: Path
    kernel: Path
    initramfs: tuple[Path, ...]
    root: Path
    ram: Path
    shared: bool
    more: tuple[str, ...] = ()


def disk_node(name: str, file: Path, *, read_only: bool) -> str:
    """Return the value of -blockdev for a raw image."""
    flag = "on" if read_only else "off"
    return f"driver=raw,node-name={name},read-only={flag},file.driver=file,file.filename={file}"


def command_line(
    profile: Profile, files: Files, accelerator: str, target: str, *, incoming: bool = False
) -> list[str]:
    """Return the arguments of QEMU; only back ends may differ between saving and restoring."""
    kvm = accelerator == "kvm"
    machine = "q35,memory-backend=ram0" + (",nvdimm=on" if profile.nvdimm else "")
    share = "on" if files.shared else "off"
    append = ("console=ttyS0", "quiet", "panic=-1", f"systemd.unit={target}", *profile.kernel_arguments)
    words = [
        QEMU,
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-M", machine, "-smp", "1", "-m", f"{MEMORY_MIB},slots=4,maxmem=4G"),
        *("-accel", "kvm" if kvm else "tcg,thread=multi", "-cpu", "host" if kvm else "max"),
        "-object",
        f"memory-backend-file,id=ram0,size={MEMORY_MIB}M,mem-path={files.ram},share={share}",
        *("-kernel", str(files.kernel), "-initrd", str(files.folder / "initrd"), "-append", " ".join(append)),
        *("-chardev", f"file,id=console,path={files.folder}/console,append=on", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=qmp,path={files.folder}/qmp", "-mon", "chardev=qmp,mode=control"),
        *("-blockdev", disk_node("root", files.root, read_only=True)),
        *("-device", "virtio-blk-pci,drive=root"),
        *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
    ]
    for channel in CHANNELS:
        words += ["-chardev", f"socket,id={channel},path={files.folder}/{channel}"]
        words += ["-device", f"virtserialport,chardev={channel},name=testbed.{channel}"]
    for controller in CONTROLLERS:
        words += ["-device", f"virtio-scsi-pci,id={controller}"]
    for number, port in enumerate(PORTS, 1):
        words += ["-device", f"pcie-root-port,id={port},chassis={number},slot={number}"]
    words += files.more
    if incoming:
        words += ["-incoming", "defer"]
    return words
