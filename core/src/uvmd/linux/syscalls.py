"""System calls that Python 3.11 lacks; the daemon's only ctypes room.

Numbers are those of x86-64 and arm64, which agree for everything newer than 2019. Every
function raises OSError with the errno of the call. Not imported on the start path: ctypes
costs a few milliseconds, so callers import this module where they need it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)

SYS_OPENAT2: Final = 437  # the same number on both architectures (asm-generic)
_SYS_REBOOT: Final = {"x86_64": 169, "aarch64": 142}

# linux/openat2.h
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10

# linux/mount.h
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
UMOUNT_NOFOLLOW: Final = 8

# linux/reboot.h
_REBOOT_MAGIC1: Final = 0xFEE1DEAD
_REBOOT_MAGIC2: Final = 672274793
_REBOOT_POWER_OFF: Final = 0x4321FEDC


def _raise(what: str) -> None:
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code), what)


def openat2(dir_fd: int, path: str, flags: int, *, resolve: int, mode: int = 0) -> int:
    """Open ``path`` below ``dir_fd`` under the ``RESOLVE_*`` rules of openat2(2).

    The descriptor is close-on-exec. ENOSYS: the kernel is older than 5.6.
    """
    if "\0" in path:
        raise ValueError("a path has no NUL")  # the kernel would read a shorter one
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
    while True:
        fd = _libc.syscall(
            ctypes.c_long(SYS_OPENAT2),
            ctypes.c_int(dir_fd),
            ctypes.c_char_p(os.fsencode(path)),
            ctypes.c_char_p(how),
            ctypes.c_size_t(len(how)),
        )
        if fd >= 0:
            return int(fd)
        # EAGAIN: a rename raced with the walk and the kernel could not tell whether it escaped.
        if ctypes.get_errno() not in (11, 4):
            _raise(path)


def mount(source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
    """Call mount(2)."""
    arguments = [os.fsencode(text) if text else None for text in (source, target, fstype)]
    packed = os.fsencode(data) if data else None
    if _libc.mount(*arguments, ctypes.c_ulong(flags), packed) != 0:
        _raise(target)


def umount(target: str, flags: int = UMOUNT_NOFOLLOW) -> None:
    """Call umount2(2); a symlink as the last component is refused unless told otherwise."""
    if _libc.umount2(os.fsencode(target), ctypes.c_int(flags)) != 0:
        _raise(target)


def power_off() -> None:
    """Switch the machine off with reboot(2): no sync, no unmount. Does not return."""
    number = _SYS_REBOOT[platform.machine()]
    _libc.syscall(
        ctypes.c_long(number),
        ctypes.c_uint(_REBOOT_MAGIC1),
        ctypes.c_uint(_REBOOT_MAGIC2),
        ctypes.c_uint(_REBOOT_POWER_OFF),
        None,
    )
    _raise("reboot")
