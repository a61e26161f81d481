"""KVM or emulation. The device file proves nothing: there are machines where it opens and guests hang.

So a guest must have printed a line under KVM, within two seconds, before KVM is used.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from uvmd.api.testing.guest.cpio import Archive
from uvmd.api.testing.guest.errors import GuestError
from uvmd.api.testing.guest.machine import join_files, short_folder
from uvmd.api.testing.guest.profiles import QEMU, QEMU_PACKAGE

VARIABLE = "UVMD_GUEST_ACCEL"
LIMIT_S = 2
MARKER = b"kvm works"


@cache
def find_accelerator(kernel: Path, initramfs: Path) -> str:
    """Return ``kvm`` or ``tcg``; UVMD_GUEST_ACCEL decides without a probe.

    Raises:
        GuestError: there is no QEMU, or the variable says something else.
    """
    if shutil.which(QEMU) is None:
        raise GuestError(f"{QEMU} is not installed: apt-get install {QEMU_PACKAGE}")
    wanted = os.environ.get(VARIABLE, "")
    if wanted in ("kvm", "tcg"):
        return wanted
    if wanted:
        raise GuestError(f"{VARIABLE} is {wanted!r}, not kvm or tcg")
    may = os.access("/dev/kvm", os.R_OK | os.W_OK)
    return "kvm" if may and boots(kernel, initramfs, "kvm") else "tcg"


def boots(kernel: Path, initramfs: Path, accelerator: str, limit_s: float = LIMIT_S) -> bool:
    """Whether the image's kernel and busybox get as far as printing a line."""
    folder = short_folder()
    try:
        # A later archive's file takes the place of an earlier one's.
        probe = Archive()
        script = f"#!/bin/busybox sh\necho {MARKER.decode()} >/dev/console\n/bin/busybox poweroff -f\n"
        probe.file("init", script.encode(), 0o755)
        (folder / "probe").write_bytes(probe.to_bytes())
        join_files((initramfs, folder / "probe"), folder / "initrd")
        command = (
            *(QEMU, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-M", "q35"),
            *("-accel", accelerator, "-cpu", "host" if accelerator == "kvm" else "max", "-m", "256"),
            *("-kernel", str(kernel), "-initrd", str(folder / "initrd"), "-serial", "stdio"),
            *("-append", "console=ttyS0 quiet panic=-1"),
        )
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s)
        except subprocess.TimeoutExpired as late:
            return MARKER in (late.stdout or b"")
        return MARKER in done.stdout
    finally:
        shutil.rmtree(folder)
