"""One share of the host: its settings, what they must be, and the kernel's words for it."""

from __future__ import annotations

import json
import re
from typing import Final, NamedTuple

from uvmd.api import I32, Field, WireModel
from uvmd.errors import Refused
from uvmd.linux import paths

FSTYPE: Final = "9p"
#: Of the 9p protocol's messages, as the reference has it; the sockets' buffers are as large.
MSIZE: Final = 65536
_STRICT_NAME: Final = "[0-9]+"
#: What could end an option, or begin another one, for mount(8) or for the kernel.
_SEPARATORS: Final = re.compile(r'[,"\\\x00-\x1f\x7f]')


class MappedDirectorySettings(WireModel):
    """A Remove of a host may leave ``ReadOnly`` out."""

    mount_path: str = Field("", alias="MountPath")
    port: I32 = Field(0, alias="Port")
    share_name: str = Field("", alias="ShareName")
    read_only: bool = Field(False, alias="ReadOnly")


class Share(NamedTuple):
    """What is mounted where."""

    target: str
    port: int
    name: str
    read_only: bool

    @property
    def source(self) -> str:
        """What the mount table says of where it comes from."""
        return f"9p:{self.port}:{self.name}"

    def require_strict_name(self) -> None:
        """Refuse, in a strict VM, a name that is no number: those that hosts give are.

        Raises:
            Refused: in the reference's words.
        """
        if not re.fullmatch(_STRICT_NAME, self.name, re.ASCII):
            name, pattern = (json.dumps(text[:300], ensure_ascii=False) for text in (self.name, _whole()))
            raise Refused(f"invalid plan9 share name {name}: must match regex {pattern}")

    def options(self, fd: int) -> str:
        """Return the mount options for a connection at descriptor ``fd`` of the mounting process."""
        words = ["ro" if self.read_only else "rw", "trans=fd", f"rfdno={fd}", f"wfdno={fd}", f"msize={MSIZE}"]
        if self.name:
            words.append(f"aname={self.name}")
        return ",".join(words)


def _whole() -> str:
    return f"^{_STRICT_NAME}$"


def require_path(path: str) -> None:
    """Refuse a path at which nothing could be mounted. Raises Refused."""
    if not paths.is_clean_absolute(path) or path == "/":
        raise Refused("MappedDirectory: MountPath is not an absolute, clean path")


def share_of(settings: MappedDirectorySettings) -> Share:
    """Return the share that an Add is about.

    Raises:
        Refused: naming the field and the reason.
    """
    require_path(settings.mount_path)
    if settings.port <= 0:
        raise Refused(f"MappedDirectory: Port {settings.port} is none; there must be one above 0")
    if _SEPARATORS.search(settings.share_name):
        raise Refused("MappedDirectory: ShareName has a character in it that separates mount options")
    return Share(settings.mount_path, settings.port, settings.share_name, settings.read_only)
