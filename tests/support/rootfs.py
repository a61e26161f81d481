"""A root file system to run: a static busybox, its applets, and the files of a small system."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from support.machine import CACHE

FOLDERS = ("bin", "dev", "etc", "home", "mnt", "proc", "root", "run", "sys", "tmp", "usr", "var")
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:web server:/home:/bin/sh\n",
    "etc/group": "root:x:0:\nwheel:x:10:web\nweb:x:1001:\n",
    # Mount points of the network files: a read-only root cannot grow them later.
    "etc/hostname": "",
    "etc/hosts": "",
    "etc/resolv.conf": "",
}


def build(where: Path) -> None:
    """Make the root file system in the folder ``where``, which must not exist."""
    busybox = shutil.which("busybox")
    assert busybox, "busybox-static is not installed: make setup"
    for folder in FOLDERS:
        (where / folder).mkdir(parents=True)
    for name, text in FILES.items():
        (where / name).write_text(text)
    (where / "tmp").chmod(0o1777)
    shutil.copy2(busybox, where / "bin" / "busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (where / "bin" / applet).symlink_to("busybox")


@cache
def shared() -> Path:
    """The root file system that tests share, made once for each busybox and each recipe.

    Containers mount it read-only or write only to /tmp, where each has a tmpfs.
    """
    recipe = hashlib.sha256(Path(__file__).read_bytes() + Path(shutil.which("busybox") or "").read_bytes())
    folder = CACHE / f"rootfs-{recipe.hexdigest()[:12]}"
    if not folder.exists():
        CACHE.mkdir(exist_ok=True)
        building = folder.with_suffix(f".{os.getpid()}")
        build(building)
        # Whole or not at all: two runs may start at once.
        try:
            building.rename(folder)
        except OSError:
            shutil.rmtree(building)
    return folder
