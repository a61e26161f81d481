"""The kernel: the ELF inside a bzImage, and the modules that we want with what they need.

The uncompressed ELF is started by QEMU's PVH direct boot, which saves half of the boot
under emulation: nothing is decompressed by emulated instructions.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path

_XZ = b"\xfd7zXZ"
_GZIP = b"\x1f\x8b"
_ELF = b"\x7fELF"


def extract_elf(image: bytes) -> bytes:
    """Return the ELF that a bzImage carries (kernel documentation: arch/x86/boot.rst).

    Raises:
        ValueError: no bzImage, or compressed in a way that Python cannot undo.
    """
    if image[0x202:0x206] != b"HdrS":
        # The magic is at 0x202; without it the offsets below mean nothing.
        raise ValueError("not a bzImage")
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    if payload.startswith(_XZ):
        # The last four bytes are the size for the kernel's own loader, not part of the stream.
        elf = lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(payload)
    elif payload.startswith(_GZIP):
        elf = gzip.decompress(payload[:-4])
    else:
        raise ValueError(f"the kernel is compressed in an unknown way ({payload[:4].hex()})")
    if not elf.startswith(_ELF):
        raise ValueError("the kernel's payload is no ELF file")
    return elf


def parse_dependencies(text: str) -> dict[str, tuple[str, list[str]]]:
    """Parse modules.dep: a module's name to its path and the paths it needs, nearest first."""
    found = {}
    for line in text.splitlines():
        path, _, needs = line.partition(":")
        found[module_name(path)] = (path, needs.split())
    return found


def module_name(path: str) -> str:
    """Return what the kernel calls the module of a file: no folder, no suffix, no hyphens."""
    return Path(path).name.partition(".ko")[0].replace("-", "_")


def closure(dependencies: dict[str, tuple[str, list[str]]], wanted: Iterable[str]) -> list[str]:
    """Return the paths of the wanted modules and of all they need, each after its needs."""
    paths: dict[str, None] = {}
    for name in wanted:
        path, needs = dependencies[name.replace("-", "_")]
        # modules.dep lists the nearest need first; loading goes the other way.
        for needed in [*reversed(needs), path]:
            paths[needed] = None
    return list(paths)


class Kernel:
    """An unpacked kernel package."""

    def __init__(self, unpacked: Path) -> None:
        self._root = unpacked
        (self._modules,) = (unpacked / "lib" / "modules").iterdir()
        self.release = self._modules.name
        if not (self._modules / "modules.dep").exists():
            _run("depmod", "-b", str(unpacked), self.release)
        self._dependencies = parse_dependencies((self._modules / "modules.dep").read_text())
        builtin = (self._modules / "modules.builtin").read_text().splitlines()
        self._builtin = {module_name(path) for path in builtin}

    def elf(self) -> bytes:
        """Return the kernel for ``qemu -kernel``."""
        return extract_elf((self._root / "boot" / f"vmlinuz-{self.release}").read_bytes())

    def select(self, wanted: Iterable[str], optional: Iterable[str] = ()) -> list[Path]:
        """Return the files of the wanted modules and their needs, in an order to load them.

        Raises:
            ValueError: the kernel lacks one that is not optional.
        """
        spare = {name.replace("-", "_") for name in optional}
        names = [name.replace("-", "_") for name in wanted]
        missing = [n for n in names if n not in self._dependencies and n not in self._builtin | spare]
        if missing:
            raise ValueError(f"kernel {self.release} has no module {', '.join(missing)}")
        present = [name for name in names if name in self._dependencies]
        return [self._modules / path for path in closure(self._dependencies, present)]

    def install(self, files: Iterable[Path], root: Path) -> None:
        """Copy modules into a root file system, with the tables that modprobe and udev read."""
        target = root / "lib" / "modules" / self.release
        for file in files:
            place = target / file.relative_to(self._modules)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
        for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
            shutil.copyfile(self._modules / name, target / name)
        _run("depmod", "-b", str(root), self.release)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
