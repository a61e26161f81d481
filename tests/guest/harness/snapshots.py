"""Saved guests. Two for each profile: booted (depends on the image only), and ready.

``booted``  kernel, systemd, helper and mirror are up: ten seconds of boot, once an image
``ready``   the code under test is mounted and uvmd runs as its service, has answered a
            Negotiate and run a container: what a test starts from, in a second

Both are files of this machine and of this QEMU: the key says so. They are never taken to
another machine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from guest.harness import code, image
from guest.harness.guest import Guest
from uvmd.api.testing.guest.accelerator import find_accelerator
from uvmd.api.testing.guest.errors import GuestHung
from uvmd.api.testing.guest.image import PRODUCT_TARGET
from uvmd.api.testing.guest.machine import short_folder
from uvmd.api.testing.guest.profiles import QEMU, Files, Profile, command_line

if TYPE_CHECKING:
    from guestimage.layers import Image

BOOT_S = 90


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A saved guest: its memory, the state of its devices, and what it was made with."""

    folder: Path
    profile: Profile
    code: Path | None

    @property
    def exists(self) -> bool:
        return (self.folder / "state").exists()

    def restore(self, *, shared_copy: Path | None = None) -> Guest:
        """Return a running guest. With ``shared_copy`` its memory is a file to be saved again."""
        ram = self.folder / "ram"
        if shared_copy is not None:
            subprocess.run(["cp", "--sparse=always", "--reflink=auto", ram, shared_copy], check=True)
            ram = shared_copy
        files = _files(image.base(), ram, shared=shared_copy is not None, code_disk=self.code)
        guest = Guest(self.profile, files, accelerator(), image.TARGET, incoming=True)
        try:
            guest.machine.restore(self.folder / "state")
            guest.wake()
        except BaseException:
            guest.close()
            raise
        return guest


def accelerator() -> str:
    return find_accelerator(image.base().kernel, image.base().initramfs)


def _files(
    of: Image, ram: Path | None, *, shared: bool, code_disk: Path | None = None, settings: str = ""
) -> Files:
    folder = short_folder()
    (folder / "tests.cpio").write_bytes(image.helpers(settings))
    archives = (of.initramfs, folder / "tests.cpio")
    more = () if code_disk is None else code.at_start(code_disk)
    return Files(folder, of.kernel, archives, of.root, ram or folder / "ram", shared, more)


@cache
def _machine_key() -> str:
    """What a saved guest depends on beside its image."""
    from guestimage.tools import digest

    version = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True).stdout
    flags = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("model", "flags"))
    ]
    return digest([version, *sorted(set(flags)), image.base().folder.name, image.helpers()])


def _key(profile: Profile, *parts: str) -> str:
    from guestimage.tools import digest

    dummy = Files(Path("/"), Path("/"), (), Path("/"), Path("/"), shared=True)
    words = command_line(profile, dummy, accelerator(), image.TARGET)
    return digest([_machine_key(), *words, *parts])


def booted(profile: Profile) -> Snapshot:
    """The guest right after its boot, made when it is missing."""
    snapshot = Snapshot(image.FOLDER / f"booted-{profile.name}-{_key(profile)}", profile, None)
    if not snapshot.exists:
        _save(snapshot, lambda ram: boot(profile, ram))
    _keep(snapshot, f"booted-{profile.name}")
    return snapshot


def ready(profile: Profile, settings: str = "") -> Snapshot:
    """The guest with the code under test and uvmd running, made when it is missing.

    ``settings`` are lines of TOML for uvmd's own file; each text has a snapshot of its own.
    """
    disk = code.disk()
    mine = "".join(path.read_text() for path in sorted(Path(__file__).parent.glob("*.py")))
    layer = f"{'variant' if settings else 'ready'}-{profile.name}"
    folder = image.FOLDER / f"{layer}-{_key(profile, disk.name, mine, settings)}"
    snapshot = Snapshot(folder, profile, disk)
    if not snapshot.exists:
        before = booted(profile)
        _save(snapshot, lambda ram: _start(before.restore(shared_copy=ram), disk, settings))
    _keep(snapshot, layer, 6 if settings else 3)
    return snapshot


def boot_product(profile: Profile, settings: str = "") -> Guest:
    """Boot the image as it is delivered: uvmd is on its way, nothing of it was waited for."""
    files = _files(image.product(), None, shared=False, settings=settings)
    return Guest(profile, files, accelerator(), PRODUCT_TARGET)


def boot(profile: Profile, ram: Path) -> Guest:
    """Boot the base image up to the helper's first answer; a boot that hangs is tried once more."""
    for attempt in (1, 2):
        guest = Guest(profile, _files(image.base(), ram, shared=True), accelerator(), image.TARGET)
        try:
            guest.wake(BOOT_S)
            return guest
        except GuestHung:
            guest.close()
            if attempt == 2:
                raise
        except BaseException:
            guest.close()
            raise
    raise AssertionError("not reached")


def _start(guest: Guest, disk: Path, settings: str) -> Guest:
    """Mount the code and let uvmd warm up: a container has run, so every program is in memory."""
    try:
        guest.add_code(disk)
        guest.daemon.configure(settings)
        guest.daemon.start()
        guest.warm_up()
    except BaseException:
        guest.close()
        raise
    return guest


def _keep(snapshot: Snapshot, layer: str, keep: int = 3) -> None:
    from guestimage.tools import keep_latest

    keep_latest(layer, snapshot.folder, keep)


def _save(snapshot: Snapshot, make: Callable[[Path], Guest]) -> None:
    room = snapshot.folder.with_suffix(f".{os.getpid()}")
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir(parents=True)
    try:
        guest = make(room / "ram")
        try:
            guest.settle()
            guest.machine.save(room / "state")
        finally:
            guest.close()
        with contextlib.suppress(OSError):  # Another run may have been faster.
            room.rename(snapshot.folder)
    finally:
        shutil.rmtree(room, ignore_errors=True)
