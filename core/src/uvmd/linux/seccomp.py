"""Filters of seccomp(2): which system calls a process may still make, as the kernel's own programs.

Everything that is not named is answered with EPERM; a call by the numbers of another
architecture ends the process. :func:`uvmd.linux.syscalls.confine` puts a filter in force.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from typing import Final

# linux/audit.h
_ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

#: Numbers by name: x86-64, arm64. Where one has no number, the other's name has another call.
_NUMBERS: Final[Mapping[str, tuple[int | None, int | None]]] = {
    "accept4": (288, 242),
    "brk": (12, 214),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "close": (3, 57),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "fstat": (5, 80),
    "futex": (202, 98),
    "getpid": (39, 172),
    "getrandom": (318, 278),
    "getsockname": (51, 204),
    "getsockopt": (55, 209),
    "gettid": (186, 178),
    "lseek": (8, 62),
    "madvise": (28, 233),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "munmap": (11, 215),
    "poll": (7, None),
    "ppoll": (271, 73),
    "read": (0, 63),
    "recvfrom": (45, 207),
    "restart_syscall": (219, 128),
    "rseq": (334, 293),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_getaffinity": (204, 123),
    "sched_yield": (24, 124),
    "sendto": (44, 206),
    "set_robust_list": (273, 99),
    "sigaltstack": (131, 132),
    "write": (1, 64),
}
#: Arguments of which certain bits must not be set: no memory that is code (PROT_EXEC).
_FORBIDDEN_BITS: Final = {"mmap": (2, 0x4), "mprotect": (2, 0x4)}

# linux/bpf_common.h, linux/seccomp.h
_LOAD: Final = 0x20
_JUMP_IF_EQUAL: Final = 0x15
_JUMP_IF_BITS: Final = 0x45
_RETURN: Final = 0x06
_KILL: Final = 0x80000000
_ERRNO_EPERM: Final = 0x00050000 | 1
_ALLOW: Final = 0x7FFF0000
_AT_NUMBER: Final = 0
_AT_ARCHITECTURE: Final = 4
_AT_ARGUMENTS: Final = 16


def numbers(names: list[str], machine: str | None = None) -> dict[str, int]:
    """Return the calls' numbers, without those that this architecture does not have.

    Raises:
        OSError: ENOSYS on an architecture that is neither.
        KeyError: a name that is not in our table.
    """
    machine = machine or os.uname().machine
    if machine not in _ARCHITECTURES:
        raise OSError(38, f"no filter for {machine}")
    column = list(_ARCHITECTURES).index(machine)
    return {name: number for name in names if (number := _NUMBERS[name][column]) is not None}


def allow_only(names: list[str], machine: str | None = None) -> bytes:
    """Return the program that allows these calls, those that are made most often first.

    Raises:
        OSError, KeyError: as :func:`numbers`.
    """
    machine = machine or os.uname().machine
    found = numbers(names, machine)
    program = [
        _one(_LOAD, _AT_ARCHITECTURE),
        _one(_JUMP_IF_EQUAL, _ARCHITECTURES[machine], 1, 0),
        _one(_RETURN, _KILL),
        _one(_LOAD, _AT_NUMBER),
    ]
    for name, number in found.items():
        if name in _FORBIDDEN_BITS:
            argument, bits = _FORBIDDEN_BITS[name]
            program += [
                _one(_JUMP_IF_EQUAL, number, 0, 4),
                _one(_LOAD, _AT_ARGUMENTS + 8 * argument),
                _one(_JUMP_IF_BITS, bits, 0, 1),
                _one(_RETURN, _ERRNO_EPERM),
                _one(_RETURN, _ALLOW),
            ]
        else:
            program += [_one(_JUMP_IF_EQUAL, number, 0, 1), _one(_RETURN, _ALLOW)]
    program.append(_one(_RETURN, _ERRNO_EPERM))
    return b"".join(program)


def _one(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
