"""KVM or emulation. The device file proves nothing: there are machines where it opens and guests hang.

So a guest must have printed a line under KVM, within two seconds, before KVM is used.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from guest.harness.image import archive
from guest.harness.machine import short_folder
from guest.harness.profiles import QEMU

VARIABLE = "UVMD_GUEST_ACCEL"
LIMIT_S = 2
MARKER = b"kvm works"


@cache
def find_accelerator(kernel: Path) -> str:
    """Return ``kvm`` or ``tcg``; UVMD_GUEST_ACCEL decides without a probe."""
    wanted = os.environ.get(VARIABLE, "")
    if wanted in ("kvm", "tcg"):
        return wanted
    assert not wanted, f"{VARIABLE} is {wanted!r}, not kvm or tcg"
    return "kvm" if os.access("/dev/kvm", os.R_OK | os.W_OK) and boots(kernel, "kvm") else "tcg"


def boots(kernel: Path, accelerator: str, limit_s: float = LIMIT_S) -> bool:
    """Whether a kernel with a tiny initramfs gets as far as printing a line."""
    folder = short_folder()
    try:
        probe = archive()
        probe.file("bin/busybox", Path(shutil.which("busybox") or "").read_bytes(), 0o755)
        script = f"#!/bin/busybox sh\necho {MARKER.decode()} >/dev/console\n/bin/busybox poweroff -f\n"
        probe.file("init", script.encode(), 0o755)
        probe.device("dev/console", 5, 1)
        (folder / "initrd").write_bytes(probe.to_bytes())
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
