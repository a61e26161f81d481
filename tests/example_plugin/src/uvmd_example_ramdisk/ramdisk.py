"""``example.com/Ramdisk``: a tmpfs of ``SizeMiB`` at ``MountPath``."""

from __future__ import annotations

import errno
import os
import posixpath

from uvmd.api import (
    U32,
    Answers,
    Claim,
    Field,
    Found,
    Handler,
    Kind,
    Plan,
    Question,
    Record,
    Undo,
    View,
    WireModel,
)
from uvmd.errors import Refused
from uvmd.linux import paths, syscalls

#: What the mount table says of where it came from.
SOURCE = "ramdisk"


class RamdiskSettings(WireModel):
    """A Remove sends the path alone."""

    mount_path: str = Field("", alias="MountPath")
    size_mib: U32 = Field(0, alias="SizeMiB")


class Ramdisk(Handler):
    """There is nothing to find: memory is always there."""

    settings = RamdiskSettings

    def identity(self, settings: RamdiskSettings) -> str:
        return f"path:{settings.mount_path}"

    def add(self, settings: RamdiskSettings, found: Found, view: View, record: Record | None) -> Plan:
        path, size_mib = settings.mount_path, settings.size_mib
        if not paths.is_clean_absolute(path) or path == "/":
            raise Refused("Ramdisk: MountPath is not a clean absolute path")
        if not 0 < size_mib <= self.env.config.max_mib:
            raise Refused(f"Ramdisk: SizeMiB is not between 1 and {self.env.config.max_mib}")

        def apply(undo: Undo, answers: Answers) -> Record:
            made = mount(path, size_mib, undo)
            return {"v": 1, "made": made}

        claim = Claim(path, SOURCE, Kind.READ_WRITE)
        return Plan((Question("modify_resource"),), apply, claims=(claim,))

    def remove(self, settings: RamdiskSettings, found: Found, view: View, record: Record | None) -> Plan:
        if record is None:
            return Plan.nothing()  # never ours, or gone already: not a path to unmount
        path, made = settings.mount_path, record["made"]

        def apply(undo: Undo, answers: Answers) -> None:
            undo.point_of_no_return(f"unmount {path}")
            unmount(path)
            paths.remove_empty(made)

        release = Claim(path, SOURCE, Kind.READ_WRITE)
        return Plan((Question("modify_resource"),), apply, releases=(release,))


def mount(path: str, size_mib: int, undo: Undo) -> list[str]:
    """Mount at ``path``, making its directories; return those that were made."""
    fd, made = paths.ensure_directory_beneath("/", path[1:], 0o755)
    try:
        undo.callback(paths.remove_empty, made)
        # Through the descriptor: what was walked without symlinks is what is mounted on.
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
        syscalls.mount(SOURCE, f"/proc/self/fd/{fd}", "tmpfs", flags, f"size={size_mib}m,mode=0755")
        undo.callback(unmount, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)
    return made


def unmount(path: str) -> None:
    """Unmount ``path``; fine if nothing is mounted there any more.

    By its parent's descriptor: one of the mount itself would keep it busy.
    """
    parent, name = posixpath.split(path)
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    fd = os.open("/", flags) if parent == "/" else paths.open_beneath("/", parent[1:], flags)
    try:
        syscalls.umount(f"/proc/self/fd/{fd}/{name}")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)
