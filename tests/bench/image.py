"""`uvmctl image` on a gibibyte, beside mkfs.ext4 -d and veritysetup format of the same tree."""

from __future__ import annotations

import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bare import call
from report import Figure

_SIZES = (300, 2_000, 9_000, 40_000, 200_000, 2_000_000, 8_000_000)
_SLACK = 100 << 20


def make_tree(root: Path, size: int) -> None:
    """Files of the sizes that root file systems have, in a thousand directories, random within."""
    dice = random.Random(1)
    written = number = 0
    while written < size:
        folder = root / f"d{number % 97}" / f"e{number % 13}"
        folder.mkdir(parents=True, exist_ok=True)
        data = dice.randbytes(min(dice.choice(_SIZES), size - written))
        (folder / f"f{number}").write_bytes(data)
        written += len(data)
        number += 1


def image_against_tools(size: int, count: int) -> Iterator[Figure]:
    """Directory and tar, each with the tools' time for the same tree in the same round.

    Every program starts anew and every file it writes is a new one. The disk is let go idle
    before each, and dropped from no cache: what is compared is work, not a disk's mood.
    """
    with tempfile.TemporaryDirectory(prefix="uvmd-bench-", dir=_roomy()) as name:
        base = Path(name)
        make_tree(base / "tree", size)
        call("/usr/bin/tar", "-C", str(base / "tree"), "-cf", str(base / "tree.tar"), ".")
        ours, packed, theirs = [], [], []
        for _ in range(count):
            ours.append(_timed(base, lambda: _uvmctl(base / "tree", base / "out")))
            packed.append(_timed(base, lambda: _uvmctl(base / "tree.tar", base / "out")))
            theirs.append(_timed(base, lambda: _tools(base / "tree", base / "out", size)))
    bare, what = statistics.median(theirs), f"{size >> 20} MiB"
    for source, samples in (("a directory", ours), ("a tar", packed)):
        took = statistics.median(samples)
        beside = f"uvmctl {took:.2f} s, mkfs.ext4 -d and veritysetup format {bare:.2f} s"
        yield Figure(f"image of {what} from {source}, to bare tools", 1.5, took / bare, "x", beside, count)


def _roomy() -> str:
    # /tmp may be memory; an image belongs on a disk.
    return "/var/tmp" if os.path.isdir("/var/tmp") else tempfile.gettempdir()


def _timed(base: Path, work: Callable[[], None]) -> float:
    os.sync()
    began = time.perf_counter()
    work()
    took = time.perf_counter() - began
    (base / "out").unlink()
    return took


def _uvmctl(source: Path, out: Path) -> None:
    call(sys.executable, "-I", "-m", "uvmd.cli.uvmctl", "image", "build", str(source), "-o", str(out))


def _tools(source: Path, out: Path, size: int) -> None:
    blocks = (size + size // 50 + _SLACK) // 4096
    mke2fs, veritysetup = _program("mke2fs"), _program("veritysetup")
    features = (
        "none,extent,flex_bg,sparse_super2,filetype,large_file,huge_file,ext_attr,dir_nlink,extra_isize"
    )
    call(
        *(mke2fs, "-q", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "0", "-O", features),
        *("-E", "lazy_itable_init=0", "-d", str(source), str(out), str(blocks)),
    )
    call(
        *(veritysetup, "format", "--salt", "0" * 64, f"--data-blocks={blocks}"),
        *(f"--hash-offset={blocks * 4096}", str(out), str(out)),
    )


def _program(name: str) -> str:
    path = shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")
    assert path, f"{name} is not installed: make setup"
    return path
