"""Filters of system calls: run here by a small machine of our own, and once by the kernel."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.linux import seccomp

ROOT = Path(__file__).parents[3] / "core" / "src"
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
NAMES = sorted(seccomp._NUMBERS)
ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
CLONE_THREAD, CLONE_VM = 0x10000, 0x100


def run(program: bytes, number: int, architecture: int, arguments: tuple[int, ...] = ()) -> int:
    """Carry a filter out over one call, as the kernel would."""
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, architecture, 0, *padded)
    steps = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    at = value = 0
    while True:
        code, if_true, if_false, operand = steps[at]
        at += 1
        if code == 0x20:
            (value,) = struct.unpack_from("=I", data, operand)
        elif code == 0x15:
            at += if_true if value == operand else if_false
        elif code == 0x35:
            at += if_true if value >= operand else if_false
        elif code == 0x45:
            at += if_true if value & operand else if_false
        else:
            assert code == 0x06
            return operand


@pytest.mark.parametrize("machine", MACHINES)
@given(names=st.lists(st.sampled_from(NAMES), unique=True), number=st.integers(0, 600))
def test_what_is_named_is_allowed_and_nothing_else(machine: str, names: list[str], number: int) -> None:
    program = seccomp.allow_only(names, machine)
    allowed = seccomp.numbers(names, machine).values()
    assert run(program, number, MACHINES[machine]) == (ALLOW if number in allowed else EPERM)
    # The x32 variant of the same number is another call.
    assert run(program, number | 0x40000000, MACHINES[machine]) == EPERM


@pytest.mark.parametrize("machine", MACHINES)
@given(names=st.lists(st.sampled_from(NAMES), unique=True), number=st.integers(0, 600))
def test_what_is_denied_is_refused_and_nothing_else(machine: str, names: list[str], number: int) -> None:
    own = seccomp.numbers(["clone", "clone3"], machine)
    names = [name for name in names if name not in own]
    program = seccomp.deny(names, machine)
    refused = seccomp.numbers(names, machine).values()
    if number not in own.values():
        assert run(program, number, MACHINES[machine]) == (EPERM if number in refused else ALLOW)
    assert run(program, number | 0x40000000, MACHINES[machine]) == EPERM


@pytest.mark.parametrize("machine", MACHINES)
@given(flags=st.integers(0, 0xFFFFFFFFFFFFFFFF))
def test_where_something_is_denied_there_are_threads_and_no_processes(machine: str, flags: int) -> None:
    program = seccomp.deny([], machine)
    own = seccomp.numbers(["clone", "clone3"], machine)
    expected = ALLOW if flags & CLONE_THREAD else EPERM
    assert run(program, own["clone"], MACHINES[machine], (flags,)) == expected
    assert run(program, own["clone"], MACHINES[machine], (CLONE_VM | CLONE_THREAD,)) == ALLOW
    assert run(program, own["clone3"], MACHINES[machine], (flags,)) == ENOSYS


@pytest.mark.parametrize("make", [seccomp.allow_only, seccomp.deny])
@pytest.mark.parametrize("machine", MACHINES)
@given(number=st.integers(0, 600), other=st.integers(0, 0xFFFFFFFF))
def test_numbers_of_another_architecture_end_the_process(
    make: Callable[[list[str], str], bytes], machine: str, number: int, other: int
) -> None:
    program = make(NAMES, machine)
    expected = KILL if other != MACHINES[machine] else run(program, number, other)
    assert run(program, number, other) == expected


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", ["mmap", "mprotect"])
def test_memory_that_is_code_is_refused(machine: str, name: str) -> None:
    program = seccomp.allow_only([name, "brk"], machine)
    (number,) = seccomp.numbers([name], machine).values()
    for protection, answer in ((0, ALLOW), (3, ALLOW), (4, EPERM), (7, EPERM)):
        assert run(program, number, MACHINES[machine], (0, 4096, protection)) == answer


def test_other_machines_have_no_filter() -> None:
    for make in (seccomp.allow_only, seccomp.deny):
        with pytest.raises(OSError, match="riscv64"):
            make(["brk"], "riscv64")
        with pytest.raises(KeyError):
            make(["no_such_call"])


CONFINED = """
import ctypes, os, sys
sys.path.insert(0, sys.argv[1])
from uvmd.linux import seccomp, syscalls
libc = ctypes.CDLL(None, use_errno=True)
allowed = ["write", "futex", "mmap", "munmap", "mprotect", "brk", "exit_group", "rt_sigaction",
           "rt_sigprocmask", "madvise", "mremap", "getpid"]
numbers = set(seccomp.numbers(allowed).values())
mmap = seccomp.numbers(["mmap"])["mmap"]
# x86-64's uretprobe and uprobe pass every filter and end who calls them without cause.
probes = {335, 336} if os.uname().machine == "x86_64" else set()
syscalls.end_with_parent()
syscalls.confine(seccomp.allow_only(allowed))
made = []
for number in range(470):
    if number not in numbers | probes:
        ctypes.set_errno(0)
        if libc.syscall(number, 0, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != 1:
            made.append(number)
code = libc.syscall(mmap, 0, 4096, 7, 0x22, -1, 0), ctypes.get_errno()
os.write(1, repr((made, code, os.getpid() > 0)).encode())
os._exit(0)
"""


@pytest.mark.system
def test_the_kernel_refuses_every_call_that_is_not_named() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", CONFINED, str(ROOT)], capture_output=True, check=False, timeout=30
    )
    assert (done.stdout, done.stderr, done.returncode) == (b"([], (-1, 1), True)", b"", 0)
