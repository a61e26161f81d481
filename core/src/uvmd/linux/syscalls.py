"""System calls that Python 3.11 lacks; the daemon's only ctypes room.

Numbers are those of x86-64 and arm64, which agree for everything newer than 2019. Every
function raises OSError with the errno of the call. Not imported on the start path: ctypes
costs a few milliseconds, so callers import this module where they need it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from functools import cache
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)
_MACHINE: Final = os.uname().machine

# The same numbers on both architectures (asm-generic).
SYS_MOVE_MOUNT: Final = 429
SYS_FSOPEN: Final = 430
SYS_FSCONFIG: Final = 431
SYS_FSMOUNT: Final = 432
SYS_OPENAT2: Final = 437
_SYS_REBOOT: Final = {"x86_64": 169, "aarch64": 142}
_SYS_SECCOMP: Final = {"x86_64": 317, "aarch64": 277}
# Of their own, because they are called for each layer: arguments of known types need no wrapping.
_openat2 = _libc["syscall"]
_openat2.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
_fsconfig = _libc["syscall"]
_fsconfig.argtypes = (
    ctypes.c_long, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int,
)  # fmt: skip

# linux/openat2.h
RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10
RESOLVE_CACHED: Final = 0x20

# linux/mount.h
MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_BIND: Final = 4096
MS_REC: Final = 16384
UMOUNT_NOFOLLOW: Final = 8
MOVE_MOUNT_F_EMPTY_PATH: Final = 0x04
MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40
FSCONFIG_SET_FLAG: Final = 0
FSCONFIG_SET_STRING: Final = 1
FSCONFIG_SET_FD: Final = 5
FSCONFIG_CMD_CREATE: Final = 6
_FSOPEN_CLOEXEC: Final = 1
_FSMOUNT_CLOEXEC: Final = 1

# linux/prctl.h, linux/seccomp.h
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_SET_MODE_FILTER: Final = 1
_SECCOMP_GET_ACTION_AVAIL: Final = 2
_SECCOMP_FILTER_FLAG_TSYNC: Final = 1
_SECCOMP_RET_ERRNO: Final = 0x00050000
_SIGKILL: Final = 9

# fcntl.h
AT_FDCWD: Final = -100

# linux/sched.h
CLONE_FS: Final = 0x200
CLONE_NEWNET: Final = 0x4000_0000

# linux/reboot.h
_REBOOT_MAGIC1: Final = 0xFEE1DEAD
_REBOOT_MAGIC2: Final = 672274793
_REBOOT_POWER_OFF: Final = 0x4321FEDC


def _raise(what: str) -> None:
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code), what)


def _packed(text: str) -> bytes:
    """Return a text for the kernel, which would read it up to a NUL. Raises OSError, EINVAL for one."""
    if "\0" in text:
        raise OSError(errno.EINVAL, "a text for the kernel has no NUL", text)
    return os.fsencode(text)


def exists(number: int) -> bool:
    """Say whether the kernel has a system call, by calling it with arguments that none accepts."""
    bad = ctypes.c_long(-1)
    return _libc.syscall(ctypes.c_long(number), bad, bad, bad, bad, bad) != -1 or (
        ctypes.get_errno() != errno.ENOSYS
    )


@cache
def _how(flags: int, mode: int, resolve: int) -> bytes:
    """Return openat2(2)'s open_how; there are a handful."""
    return struct.pack("=QQQ", flags, mode, resolve)


def openat2(dir_fd: int, path: str, flags: int, *, resolve: int, mode: int = 0) -> int:
    """Open ``path`` below ``dir_fd`` under the ``RESOLVE_*`` rules of openat2(2).

    The descriptor is close-on-exec. ENOSYS: the kernel is older than 5.6. With RESOLVE_CACHED
    EAGAIN is what a file system would have to be asked for, and EINVAL a kernel before 5.12.
    """
    if "\0" in path:
        raise ValueError("a path has no NUL")  # the kernel would read a shorter one
    how, packed = _how(flags | os.O_CLOEXEC, mode, resolve), os.fsencode(path)
    while True:
        fd: int = _openat2(SYS_OPENAT2, dir_fd, packed, how, len(how))
        if fd >= 0:
            return fd
        # EAGAIN: a rename raced with the walk and the kernel could not tell whether it escaped.
        if ctypes.get_errno() not in (11, 4) or resolve & RESOLVE_CACHED:
            _raise(path)


def mount(source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
    """Call mount(2)."""
    *arguments, last = (_packed(text) if text else None for text in (source, target, fstype, data))
    if _libc.mount(*arguments, ctypes.c_ulong(flags), last) != 0:
        _raise(target)


def umount(target: str, flags: int = UMOUNT_NOFOLLOW) -> None:
    """Call umount2(2); a symlink as the last component is refused unless told otherwise."""
    if _libc.umount2(_packed(target), ctypes.c_int(flags)) != 0:
        _raise(target)


def fsopen(fstype: str) -> int:
    """Call fsopen(2): a close-on-exec descriptor of a file system about to be configured.

    ENOSYS: the kernel is older than 5.2. ENODEV: it does not know the file system.
    """
    fd = _libc.syscall(
        ctypes.c_long(SYS_FSOPEN), ctypes.c_char_p(_packed(fstype)), ctypes.c_uint(_FSOPEN_CLOEXEC)
    )
    if fd < 0:
        _raise(fstype)
    return int(fd)


def fsconfig(fd: int, command: int, key: str = "", value: str = "", aux: int = 0) -> None:
    """Call fsconfig(2). An empty key or value is passed as a null pointer."""
    pair = [_packed(text) if text else None for text in (key, value)]
    if _fsconfig(SYS_FSCONFIG, fd, command, *pair, aux) != 0:
        _raise(key)


def fsmount(fd: int, attributes: int) -> int:
    """Call fsmount(2): a close-on-exec descriptor of a mount that is nowhere yet."""
    mounted = _libc.syscall(
        ctypes.c_long(SYS_FSMOUNT),
        ctypes.c_int(fd),
        ctypes.c_uint(_FSMOUNT_CLOEXEC),
        ctypes.c_uint(attributes),
    )
    if mounted < 0:
        _raise("")
    return int(mounted)


def move_mount(from_fd: int, to_fd: int, to_path: str, flags: int) -> None:
    """Call move_mount(2) for the mount that ``from_fd`` is."""
    result = _libc.syscall(
        ctypes.c_long(SYS_MOVE_MOUNT),
        ctypes.c_int(from_fd),
        ctypes.c_char_p(b""),
        ctypes.c_int(to_fd),
        ctypes.c_char_p(_packed(to_path)),
        ctypes.c_uint(flags),
    )
    if result != 0:
        _raise(to_path)


def unshare(flags: int) -> None:
    """Call unshare(2): it is the calling thread alone that leaves what ``flags`` names."""
    if _libc.unshare(ctypes.c_int(flags)) != 0:
        _raise("unshare")


def setns(fd: int, kind: int) -> None:
    """Call setns(2): it is the calling thread alone that enters the namespace."""
    if _libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)) != 0:
        _raise("setns")


def ioctl(fd: int, request: int, buffer: bytearray) -> None:
    """Call ioctl(2) with a buffer that the kernel reads and writes."""
    fcntl.ioctl(fd, request, buffer, True)


def power_off() -> None:
    """Switch the machine off with reboot(2): no sync, no unmount. Does not return."""
    number = _SYS_REBOOT[_MACHINE]
    _libc.syscall(
        ctypes.c_long(number),
        ctypes.c_uint(_REBOOT_MAGIC1),
        ctypes.c_uint(_REBOOT_MAGIC2),
        ctypes.c_uint(_REBOOT_POWER_OFF),
        None,
    )
    _raise("reboot")


def end_with_parent() -> None:
    """Have this process killed when the thread that started it ends (prctl(2), PR_SET_PDEATHSIG)."""
    arguments = map(ctypes.c_ulong, (_SIGKILL, 0, 0, 0))
    if _libc.prctl(ctypes.c_int(_PR_SET_PDEATHSIG), *arguments) != 0:
        _raise("prctl")


def hide_memory() -> None:
    """Have this process leave no core and show its memory to nobody without CAP_SYS_PTRACE (prctl(2))."""
    if _libc.prctl(ctypes.c_int(_PR_SET_DUMPABLE), *map(ctypes.c_ulong, (0, 0, 0, 0))) != 0:
        _raise("prctl")


def confine(program: bytes) -> None:
    """Put every thread of this process under a seccomp filter for good, and what it executes (seccomp(2)).

    ``program`` is made by :mod:`uvmd.linux.seccomp`. The process gains no privileges any more.
    EINVAL: the kernel has no filters.
    """
    if _libc.prctl(ctypes.c_int(_PR_SET_NO_NEW_PRIVS), *map(ctypes.c_ulong, (1, 0, 0, 0))) != 0:
        _raise("prctl")
    text = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a length in instructions, padding, a pointer.
    header = struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(text))
    number, flags = ctypes.c_long(_SYS_SECCOMP[_MACHINE]), ctypes.c_uint(_SECCOMP_FILTER_FLAG_TSYNC)
    done = _libc.syscall(number, ctypes.c_uint(_SECCOMP_SET_MODE_FILTER), flags, ctypes.c_char_p(header))
    if done < 0:
        _raise("seccomp")
    if done > 0:
        raise OSError(errno.EBUSY, f"thread {done} has a filter of its own")


def has_filters() -> bool:
    """Say whether the kernel can put a process under a seccomp filter."""
    number = ctypes.c_long(_SYS_SECCOMP[_MACHINE])
    action = ctypes.byref(ctypes.c_uint32(_SECCOMP_RET_ERRNO))
    asked = ctypes.c_uint(_SECCOMP_GET_ACTION_AVAIL)
    return int(_libc.syscall(number, asked, ctypes.c_uint(0), action)) == 0
