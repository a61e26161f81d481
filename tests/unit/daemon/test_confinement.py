"""What the daemon may not ask of the kernel, each call made once by a child under the filter."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from uvmd.daemon import confinement
from uvmd.linux import seccomp

ROOT = Path(__file__).parents[3]
#: Beside the denied names: a process, and a call by the numbers of x32.
OTHERS = ["clone", "x32 getpid"]
MADE = [*seccomp.numbers(confinement.denied(powers_off=False)), *OTHERS]
if os.uname().machine != "x86_64":
    MADE.remove("x32 getpid")

# Should the filter not answer, no call does anything: pointers to nowhere, sizes and numbers that
# are none. A fork ends at once.
CHILD = """
import ctypes, errno, json, os, socket, struct, sys, threading
sys.path.insert(0, sys.argv[1])
from uvmd.daemon import confinement
from uvmd.linux import seccomp, syscalls
waiting, go, answers = threading.Event(), threading.Event(), {}
libc = ctypes.CDLL(None, use_errno=True)
nowhere, none = ctypes.c_long(8), ctypes.c_long(-8)

def call(number, *arguments):
    ctypes.set_errno(0)
    done = libc.syscall(ctypes.c_long(number), *(arguments or (nowhere, none, none, none, none, none)))
    if done == 0 and os.getpid() != pid:
        os._exit(0)
    return ctypes.get_errno() if done == -1 else 0

def make_all():
    waiting.set()
    go.wait()
    numbers = seccomp.numbers(confinement.denied(powers_off=False))
    for name, number in numbers.items():
        answers[name] = call(number)
    clone = seccomp.numbers(["clone"])["clone"]
    answers["clone"] = call(clone, *[ctypes.c_long(0)] * 5)
    answers["x32 getpid"] = call(0x40000000 | 39)

pid = os.getpid()
earlier = threading.Thread(target=make_all)
earlier.start()
waiting.wait()
real = syscalls.confine
if sys.argv[2] == "marked":
    # The same filter with an errno that no call has: so it is the filter that answers.
    eperm, marked = struct.pack("=HBBI", 6, 0, 0, 0x50001), struct.pack("=HBBI", 6, 0, 0, 0x50000 | 199)
    syscalls.confine = lambda program: real(program.replace(eperm, marked))
confinement.install(powers_off=False)
go.set()
earlier.join()
# What it does need.
done = []
after = threading.Thread(target=lambda: done.append(os.getpid()))
after.start()
after.join()
socket.socketpair()
os.close(os.eventfd(0))
os.kill(pid, 0)
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
facts = {"thread": done == [pid], "seccomp": status["Seccomp"].strip(), "nnp": status["NoNewPrivs"].strip()}
os.write(1, json.dumps({"answers": answers, **facts}).encode())
os._exit(0)
"""


@pytest.fixture(scope="module", params=["as it is", "marked"])
def child(request: pytest.FixtureRequest) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-I", "-c", CHILD, str(ROOT / "core" / "src"), request.param],
        capture_output=True,
        check=False,
        timeout=30,
        start_new_session=True,  # vhangup(2) would find no terminal
    )
    assert (done.stderr, done.returncode) == (b"", 0)
    found: dict[str, object] = json.loads(done.stdout)
    return {**found, "errno": 1 if request.param == "as it is" else 199}


@pytest.mark.system
@pytest.mark.parametrize("name", MADE)
def test_the_kernel_refuses_it_to_threads_that_were_there_before(child: dict, name: str) -> None:
    assert child["answers"][name] == child["errno"]


@pytest.mark.system
def test_threads_sockets_and_signals_go_on(child: dict) -> None:
    assert (child["thread"], child["seccomp"], child["nnp"]) == (True, "2", "1")


# A call by the 32-bit numbers (getpid), as an attacker's code would make it.
FOREIGN = """
import ctypes, mmap, sys
sys.path.insert(0, sys.argv[1])
from uvmd.daemon import confinement
if sys.argv[2] == "confined":
    confinement.install(powers_off=False)
memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(bytes([0xB8, 20, 0, 0, 0, 0xCD, 0x80, 0xC3]))
ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()
"""


def foreign(how: str) -> int:
    argv = [sys.executable, "-I", "-c", FOREIGN, str(ROOT / "core" / "src"), how]
    return subprocess.run(argv, check=False, timeout=30, stderr=subprocess.DEVNULL).returncode


if os.uname().machine == "x86_64":  # whose code it is

    @pytest.mark.system
    def test_a_call_by_the_numbers_of_another_architecture_ends_it() -> None:
        # A kernel without those numbers ends it in any case.
        assert foreign("confined") == (-signal.SIGSYS if foreign("free") == 0 else -signal.SIGSEGV)


def test_only_who_switches_the_machine_off_may_ask_for_it() -> None:
    every, fewer = confinement.denied(powers_off=False), confinement.denied(powers_off=True)
    assert set(every) - set(fewer) == {"reboot"}
    assert len(every) == len(set(every))


def test_the_page_lists_what_is_denied() -> None:
    page = (ROOT / "docs" / "confinement.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| (`[^|]+`) \|", page, re.MULTILINE)
    assert {what: tuple(re.findall(r"`(\w+)`", calls)) for what, calls in rows} == confinement.DENIED


def test_a_kernel_without_filters_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from uvmd.linux import syscalls

    def refuse(program: bytes) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(syscalls, "confine", refuse)
    confinement.install(powers_off=False)
    assert [line.message for line in caplog.records] == ["system calls are not filtered, ignoring"]
