"""What the daemon may not ask of the kernel: it starts nothing, and looks into nobody.

Refused is what neither we nor a plugin's handler has a use for: the monitor starts programs,
chronyd keeps the clock, the kernel loads its modules itself. A list of what is refused, not of
what is allowed: handlers are anybody's code, and what the C library, Python or a driver's
interface calls changes from release to release (docs/decisions/0017). Containers have nothing
of it, they are children of the monitor.
"""

from __future__ import annotations

import logging
from typing import Final

log = logging.getLogger(__name__)

#: By what they would be for. docs/confinement.md has the same table; a test compares them.
DENIED: Final = {
    "starting programs and processes": ("execve", "execveat", "fork", "vfork"),
    "other processes' memory and descriptors": (
        "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp", "pidfd_getfd",
        "migrate_pages", "move_pages",
    ),
    "code for the kernel": (
        "init_module", "finit_module", "delete_module", "create_module", "query_module", "get_kernel_syms",
        "kexec_load", "kexec_file_load", "bpf",
    ),
    "interfaces through which kernels were attacked": (
        "userfaultfd", "perf_event_open", "io_uring_setup", "io_uring_enter", "io_uring_register",
        "open_by_handle_at", "lookup_dcookie", "add_key", "request_key", "keyctl", "modify_ldt",
    ),
    "the clock": ("settimeofday", "clock_settime", "adjtimex", "clock_adjtime"),
    "the machine as a whole": (
        "reboot", "swapon", "swapoff", "sethostname", "setdomainname", "acct", "quotactl", "quotactl_fd",
        "syslog", "iopl", "ioperm", "vhangup",
    ),
    "another root directory": ("chroot", "pivot_root"),
    "what no program has used for twenty years": (
        "personality", "nfsservctl", "uselib", "ustat", "sysfs", "_sysctl",
    ),
}  # fmt: skip


def denied(*, powers_off: bool) -> list[str]:
    """Return the names; ``powers_off``: a host may ask us to switch the machine off."""
    return [name for names in DENIED.values() for name in names if not (name == "reboot" and powers_off)]


def install(*, powers_off: bool) -> None:
    """Put the filter in force for every thread. A kernel without filters is logged, not fatal."""
    from uvmd.linux import seccomp, syscalls

    try:
        syscalls.confine(seccomp.deny(denied(powers_off=powers_off)))
    except OSError as error:
        log.warning("system calls are not filtered, ignoring", extra={"error": error.strerror})
