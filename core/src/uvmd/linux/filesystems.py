"""What is on a device, and making a file system by the distribution's tools."""

from __future__ import annotations

import os
import re
import struct
import time
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from uvmd.errors import DeadlineExceeded, Failed
from uvmd.linux import block

_HEAD_BYTES: Final = 0x11000
_PAGE: Final = 4096
_EXT_COMPATIBLE: Final = 1024 + 0x5C
_EXT_HAS_JOURNAL: Final = 0x4

#: Where what can be told by a few bytes has them. The first that fits is the answer.
_SIGNATURES: Final = (
    (1024 + 0x38, b"\x53\xef", "ext4"),
    (0, b"XFSB", "xfs"),
    (0, b"LUKS\xba\xbe", "LUKS"),
    (0x10040, b"_BHRfS_M", "btrfs"),
    (1024, b"\xe2\xe1\xf5\xe0", "erofs"),
    (0, b"hsqs", "squashfs"),
    (0, b"verity\0\0", "a hash tree"),
    (0x218, b"LVM2 001", "LVM"),
    (4086, b"SWAPSPACE2", "swap"),
    (512, b"EFI PART", "a partition table"),
    (510, b"\x55\xaa", "a partition table or FAT"),
)
MOUNTABLE: Final = ("ext4", "xfs")


class Content(NamedTuple):
    """What is on a device: a name from the table above, or "" if nothing known is there.

    ``journal``: an ext4 with a journal, which a read-only mount must not replay.
    """

    name: str
    journal: bool = False

    @property
    def filesystem(self) -> str:
        """Its file system's type if it is one that we mount, else ""."""
        return self.name if self.name in MOUNTABLE else ""


class _Completed(Protocol):
    @property
    def status(self) -> int: ...
    @property
    def timed_out(self) -> bool: ...
    @property
    def output(self) -> bytes: ...


class Run(Protocol):
    """Runs a command until a deadline: ``env.run`` of a plugin."""

    def __call__(self, argv: Sequence[str], *, deadline: float) -> _Completed: ...


def parse_head(head: bytes) -> Content:
    """Tell by a device's first bytes what is on it."""
    for at, signature, name in _SIGNATURES:
        if head[at : at + len(signature)] == signature:
            if name != "ext4":
                return Content(name)
            (features,) = struct.unpack_from("<I", head.ljust(_EXT_COMPATIBLE + 4, b"\0"), _EXT_COMPATIBLE)
            return Content(name, bool(features & _EXT_HAS_JOURNAL))
    return Content("")


def content(device: int | str, offset: int = 0) -> Content:
    """Tell what is on a device, by descriptor or path, from ``offset`` on. Raises OSError."""
    if isinstance(device, int):
        # Most often it is ext4, which is told by its first page.
        found = parse_head(os.pread(device, _PAGE, offset))
        return found if found.name == "ext4" else parse_head(os.pread(device, _HEAD_BYTES, offset))
    fd = block.open_device(device)
    try:
        return content(fd, offset)
    finally:
        os.close(fd)


def probe(device: int | str) -> str:
    """Return ``ext4``, ``xfs``, or "" for anything else. Raises OSError."""
    return content(device).filesystem


def read_only_options(content: Content, fstype: str) -> str:
    """Return the mount data that keeps a read-only mount from writing to its device."""
    if fstype == "xfs":
        return "norecovery"
    return "noload" if fstype == "ext4" and content.journal else ""


_COMMANDS: Final = {"ext4": ("mkfs.ext4",), "xfs": ("mkfs.xfs", "-f")}
_TEXTS: Final = {
    "ext4": "ext4 format: mkfs.ext4 failed to format {device}: failed to execute mkfs.ext4: ",
    "xfs": "xfs format: mkfs.xfs failed with ",
}


def format(run: Run, device: str, fstype: str, deadline: float) -> None:
    """Make a file system on a device, whatever is on it.

    Raises:
        Failed: no such file system is made here, or the tool says no; with its words.
        DeadlineExceeded: it was killed at ``deadline`` (monotonic clock).
    """
    if fstype not in _COMMANDS:
        raise Failed(f"unsupported filesystem {fstype} requested for device")
    argv = [*_COMMANDS[fstype], device]
    what = _TEXTS[fstype].format(device=device)
    began = time.monotonic()
    try:
        completed = run(argv, deadline=deadline)
    except OSError as error:
        raise Failed(f"{what}{argv[0]}: {(error.strerror or str(error)).lower()}") from error
    if completed.timed_out:
        raise DeadlineExceeded(f"{what}killed after {time.monotonic() - began:.1f} s, at its deadline")
    if completed.status != 0:
        raise Failed(f"{what}{last_words(completed.output)}: exit status {completed.status}")


def last_words(output: bytes, limit: int = 1000) -> str:
    """Return what a tool said on one line; of a lot, the beginning and the end.

    Its usage, which mkfs.xfs prints after each refusal, is left out.
    """
    text = re.split(r"^Usage:", output.decode("utf-8", "replace"), maxsplit=1, flags=re.MULTILINE)[0]
    text = "; ".join(filter(None, map(str.strip, text.splitlines())))
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]} … {text[-half:]}"
