"""What policyd may still ask of the kernel once it is set up: memory, time, and its one connection.

No processes, no new sockets, no files in any way, no signals to others, no memory that is
code. What the engine or Python would open later is therefore brought in before.
"""

from __future__ import annotations

import base64
import json

from uvmd.linux.seccomp import allow_only
from uvmd.linux.syscalls import confine, end_with_parent, hide_memory
from uvmd_policy_rego import lenient, modules, protocol
from uvmd_policy_rego.desk import Desk

#: Most often made first.
ALLOWED = [
    "recvfrom", "sendto", "futex", "mmap", "munmap", "mremap", "madvise", "brk", "mprotect",
    "accept4", "close", "getsockname", "getsockopt", "poll", "ppoll", "read", "write", "lseek",
    "fstat", "clock_gettime", "clock_nanosleep", "getrandom", "getpid", "gettid", "sched_yield",
    "sched_getaffinity", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack",
    "restart_syscall", "rseq", "set_robust_list", "exit", "exit_group",
]  # fmt: skip
_POLICY = 'package policy\napi_version := "0.12.0"\ncontainers := []\nx := input.x\n'


def install() -> None:
    """Put the filter in force.

    Raises:
        OSError: the kernel has none, or not for this architecture: then there is no policyd.
    """
    # The monitor ends us when it ends; this is for one that is killed.
    end_with_parent()
    hide_memory()
    confine(allow_only(ALLOWED))


def warm_up() -> None:
    """Bring in whatever is read from files on first use: our Rego, Python's codecs."""
    for lookup in ("indexed", "settled", "live"):
        modules.own_modules(lookup)
    lenient.module()
    desk = Desk()
    asked = {"text": _POLICY, "policy": "", "kept": {}, "modules": [], "mounts": []}
    desk.handle(protocol.LOAD, json.dumps(asked).encode())
    desk.handle(protocol.DECIDE, b'get_properties\n{"envList": ["A=\xc3\xa9"]}')
    desk.handle(protocol.DESCRIBE, b"{}")
    desk.close()
    base64.b64encode("\u00e9".encode("utf-8", "replace"))
