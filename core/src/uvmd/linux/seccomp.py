"""Filters of seccomp(2): which system calls a process may still make, as the kernel's own programs.

What is refused is answered with EPERM; a call by the numbers of another architecture ends the
process. :func:`uvmd.linux.syscalls.confine` puts a filter in force. Which calls are named, and
why, is decided by who is to be confined.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from typing import Final

# linux/audit.h
_ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

#: Numbers by name: x86-64, arm64. Where one has no number, the other's name has another call.
_NUMBERS: Final[Mapping[str, tuple[int | None, int | None]]] = {
    "accept4": (288, 242),
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "brk": (12, 214),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "clock_settime": (227, 112),
    "clone": (56, 220),
    "clone3": (435, 435),
    "close": (3, 57),
    "create_module": (174, None),
    "delete_module": (176, 106),
    "execve": (59, 221),
    "execveat": (322, 281),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "finit_module": (313, 273),
    "fork": (57, None),
    "fstat": (5, 80),
    "futex": (202, 98),
    "get_kernel_syms": (177, None),
    "getpid": (39, 172),
    "getrandom": (318, 278),
    "getsockname": (51, 204),
    "getsockopt": (55, 209),
    "gettid": (186, 178),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "lseek": (8, 62),
    "madvise": (28, 233),
    "migrate_pages": (256, 238),
    "mmap": (9, 222),
    "modify_ldt": (154, None),
    "move_pages": (279, 239),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "munmap": (11, 215),
    "nfsservctl": (180, 42),
    "open_by_handle_at": (304, 265),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "poll": (7, None),
    "ppoll": (271, 73),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "query_module": (178, None),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "read": (0, 63),
    "reboot": (169, 142),
    "recvfrom": (45, 207),
    "request_key": (249, 218),
    "restart_syscall": (219, 128),
    "rseq": (334, 293),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_getaffinity": (204, 123),
    "sched_yield": (24, 124),
    "sendto": (44, 206),
    "set_robust_list": (273, 99),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "settimeofday": (164, 170),
    "sigaltstack": (131, 132),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "_sysctl": (156, None),
    "sysfs": (139, None),
    "syslog": (103, 116),
    "uselib": (134, None),
    "userfaultfd": (323, 282),
    "ustat": (136, None),
    "vfork": (58, None),
    "vhangup": (153, 58),
    "write": (1, 64),
}
#: Arguments of which certain bits must not be set: no memory that is code (PROT_EXEC).
_FORBIDDEN_BITS: Final = {"mmap": (2, 0x4), "mprotect": (2, 0x4)}

# linux/bpf_common.h, linux/seccomp.h
_LOAD: Final = 0x20
_JUMP_IF_EQUAL: Final = 0x15
_JUMP_IF_ABOVE: Final = 0x35  # or equal
_JUMP_IF_BITS: Final = 0x45
_RETURN: Final = 0x06
_KILL: Final = 0x80000000
_EPERM: Final = 0x00050000 | 1
_ENOSYS: Final = 0x00050000 | 38
_ALLOW: Final = 0x7FFF0000
_AT_NUMBER: Final = 0
_AT_ARCHITECTURE: Final = 4
_AT_ARGUMENTS: Final = 16
_X32: Final = 0x40000000
_CLONE_THREAD: Final = 0x00010000


def numbers(names: Sequence[str], machine: str | None = None) -> dict[str, int]:
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


def allow_only(names: Sequence[str], machine: str | None = None) -> bytes:
    """Return the program that allows these calls, those that are made most often first.

    Raises:
        OSError, KeyError: as :func:`numbers`.
    """
    found = numbers(names, machine)
    program = _of_one_architecture(machine)
    for name, number in found.items():
        if name in _FORBIDDEN_BITS:
            argument, bits = _FORBIDDEN_BITS[name]
            program += [
                _one(_JUMP_IF_EQUAL, number, 0, 4),
                _one(_LOAD, _AT_ARGUMENTS + 8 * argument),
                _one(_JUMP_IF_BITS, bits, 0, 1),
                _one(_RETURN, _EPERM),
                _one(_RETURN, _ALLOW),
            ]
        else:
            program += [_one(_JUMP_IF_EQUAL, number, 0, 1), _one(_RETURN, _ALLOW)]
    program.append(_one(_RETURN, _EPERM))
    return b"".join(program)


def deny(names: Sequence[str], machine: str | None = None) -> bytes:
    """Return the program that allows all but these calls, and of clone(2) only threads.

    clone3(2), whose flags no filter can read, is answered as by a kernel without it: the C
    library then calls clone(2). The second set of numbers on x86-64, x32, is refused whole.

    Raises:
        OSError, KeyError: as :func:`numbers`.
    """
    found = numbers([*names, "clone", "clone3"], machine)
    clone, clone3 = found.pop("clone"), found.pop("clone3")
    program = [*_of_one_architecture(machine), _one(_JUMP_IF_ABOVE, _X32, 0, 1), _one(_RETURN, _EPERM)]
    for number in found.values():
        program += [_one(_JUMP_IF_EQUAL, number, 0, 1), _one(_RETURN, _EPERM)]
    program += [
        _one(_JUMP_IF_EQUAL, clone3, 0, 1),
        _one(_RETURN, _ENOSYS),
        _one(_JUMP_IF_EQUAL, clone, 0, 3),
        _one(_LOAD, _AT_ARGUMENTS),
        _one(_JUMP_IF_BITS, _CLONE_THREAD, 1, 0),
        _one(_RETURN, _EPERM),
        _one(_RETURN, _ALLOW),
    ]
    return b"".join(program)


def _of_one_architecture(machine: str | None) -> list[bytes]:
    """The beginning: other architectures end here, the call's number is what is looked at next."""
    return [
        _one(_LOAD, _AT_ARCHITECTURE),
        _one(_JUMP_IF_EQUAL, _ARCHITECTURES[machine or os.uname().machine], 1, 0),
        _one(_RETURN, _KILL),
        _one(_LOAD, _AT_NUMBER),
    ]


def _one(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
