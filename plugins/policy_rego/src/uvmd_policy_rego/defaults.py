"""What a policy is given besides the request: prefixes, default mounts, capabilities (policy.md 2)."""

from __future__ import annotations

from typing import Any

SANDBOX_PREFIX = "sandbox://"
HUGE_PAGES_PREFIX = "hugepages://"
PLAN9_PREFIX = "plan9://"
#: In production; 0 means that nothing is cut.
MAX_MESSAGE_BYTES = 3 * 1024

_UNPRIVILEGED = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE "
    "SYS_CHROOT KILL AUDIT_WRITE"
)
_PRIVILEGED = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
    "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
    "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
    "PERFMON BPF CHECKPOINT_RESTORE"
)
UNPRIVILEGED_CAPABILITIES = [f"CAP_{name}" for name in _UNPRIVILEGED.split()]
PRIVILEGED_CAPABILITIES = [f"CAP_{name}" for name in _PRIVILEGED.split()]


def _mount(destination: str, type_: str, source: str, options: str) -> dict[str, Any]:
    return {"destination": destination, "type": type_, "source": source, "options": options.split()}


_SYS = "nosuid noexec nodev"
DEFAULT_MOUNTS = [
    _mount("/proc", "proc", "proc", _SYS),
    _mount("/dev", "tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
    _mount("/dev/pts", "devpts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
    _mount("/dev/shm", "tmpfs", "shm", f"{_SYS} mode=1777 size=65536k"),
    _mount("/dev/mqueue", "mqueue", "mqueue", _SYS),
    _mount("/sys", "sysfs", "sysfs", f"{_SYS} ro"),
    _mount("/run", "tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
    _mount("/sys/fs/cgroup", "cgroup", "cgroup", f"{_SYS} relatime ro"),
    _mount("/sys/fs/cgroup", "cgroup2", "cgroup2", f"{_SYS} relatime ro"),
]
PRIVILEGED_MOUNTS = [
    _mount("/sys/fs/cgroup", "cgroup", "cgroup", f"{_SYS} relatime rw"),
    _mount("/sys/fs/cgroup", "cgroup2", "cgroup2", f"{_SYS} relatime rw"),
    _mount("/sys", "sysfs", "sysfs", f"{_SYS} rw"),
]
