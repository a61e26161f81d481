"""The code under test as a disk: our distributions as pip would leave them, and a root file system.

It is hot-added to a restored guest and mounted where the image's environment looks for it, so
neither the image nor its snapshot depends on the code.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from guest.harness import image
from support import rootfs
from uvmd.api.testing.guest.profiles import disk_node

if TYPE_CHECKING:
    from guestimage.wheels import Distribution

#: Where the disk is mounted in the guest, and the root file system for containers on it.
MOUNT = "/opt/uvmd/code"
ROOTFS = Path(f"{MOUNT}/rootfs")
#: Where the disk sits; storage tests use targets below.
BUS, TARGET = "sc1.0", 7
_SKIPPED = ("__pycache__", ".egg-info", ".pyc")


def at_start(disk: Path) -> tuple[str, ...]:
    """Return the arguments of QEMU for a guest that was saved with the disk in it."""
    drive = disk_node("code", disk, read_only=True)
    return ("-blockdev", drive, "-device", f"scsi-hd,id=code,bus={BUS},scsi-id={TARGET},lun=0,drive=code")


@cache
def disk() -> Path:
    """The disk for the source tree as it is now; made once for each content."""
    image.recipe()
    from guestimage import wheels
    from guestimage.tools import digest, keep_latest

    distributions = wheels.find_distributions(image.ROOT)
    parts = [part for one in distributions for part in (one.folder / "setup.cfg", one.source)]
    recipe = (Path(__file__), Path(rootfs.__file__), Path(shutil.which("busybox") or ""))
    target = image.FOLDER / f"code-{digest([*parts, *recipe], skip=_SKIPPED)}.erofs"
    if not target.exists():
        _build(target, distributions)
    keep_latest("code", target)
    return target


def _build(target: Path, distributions: list[Distribution]) -> None:
    from guestimage.tools import remove

    room = target.with_suffix(f".{os.getpid()}")
    remove(room)
    room.mkdir(parents=True)
    try:
        for one in distributions:
            _lay_out(one, room)
        # Valid whatever the file's time: the disk has one time for all.
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        compileall.compile_dir(room, quiet=1, invalidation_mode=mode)
        rootfs.build(room / "rootfs")
        made = room.with_suffix(".made")
        subprocess.run(["mkfs.erofs", "--quiet", "-T0", made, room], check=True, stdin=subprocess.DEVNULL)
        made.rename(target)
    finally:
        remove(room)


def _lay_out(distribution: Distribution, room: Path) -> None:
    """Copy a distribution's packages, with the metadata by which it is found as installed."""
    ignore = shutil.ignore_patterns(*(f"*{name}" for name in _SKIPPED))
    shutil.copytree(distribution.source, room, ignore=ignore, dirs_exist_ok=True)
    info = room / f"{distribution.name.replace('-', '_')}-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution.name}\nVersion: 0\n")
    (info / "entry_points.txt").write_text(distribution.entry_points)
