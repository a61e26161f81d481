"""What this kernel can do: system calls and their filters, namespaces, filesystems, device-mapper, vsock.

A feature that is a module counts as there when its file lies where modprobe would find it;
it is not loaded.
"""

from __future__ import annotations

import errno
import os
import posixpath
import socket
from collections.abc import Callable
from typing import Final

from uvmd.linux import devmapper, seccomp, syscalls

#: What uvmd calls beyond Python's own, and the kernel that brought it.
SYSTEM_CALLS: Final = {
    "openat2": (syscalls.SYS_OPENAT2, "5.6"),
    "fsopen": (syscalls.SYS_FSOPEN, "5.2"),
    "fsconfig": (syscalls.SYS_FSCONFIG, "5.2"),
    "fsmount": (syscalls.SYS_FSMOUNT, "5.2"),
    "move_mount": (syscalls.SYS_MOVE_MOUNT, "5.2"),
}

#: Those that containers are made of.
NAMESPACES: Final = ("mnt", "pid", "net", "ipc", "uts", "cgroup")


def missing_calls() -> list[str]:
    """Return the system calls that this kernel lacks, each with the version that has it."""
    missing = [
        f"{name} (Linux {since})"
        for name, (number, since) in SYSTEM_CALLS.items()
        if not syscalls.exists(number)
    ]
    if not hasattr(os, "pidfd_open"):
        return [*missing, "pidfd_open (Linux 5.3)"]
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        if error.errno == errno.ENOSYS:
            missing.append("pidfd_open (Linux 5.3)")
    return missing


def missing_namespaces(folder: str = "/proc/self/ns") -> list[str]:
    """Return the kinds of namespaces that containers are made of and this kernel lacks."""
    return [name for name in NAMESPACES if not os.path.lexists(f"{folder}/{name}")]


def has_seccomp() -> bool:
    """Say whether system calls can be filtered, on a machine whose numbers we know."""
    try:
        seccomp.numbers([])
    except OSError:
        return False
    return syscalls.has_filters()


def has_feature(name: str) -> bool:
    """Say whether the kernel has ``seccomp``, ``vsock``, or namespaces of a kind, say ``net``."""
    if name in NAMESPACES:
        return name not in missing_namespaces()
    return FEATURES[name]() if name in FEATURES else False


def has_vsock() -> bool:
    """Say whether sockets of AF_VSOCK can be made."""
    try:
        socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
    except OSError:
        return has_module("vsock")
    return True


def has_filesystem(name: str, proc_root: str = "/proc") -> bool:
    """Say whether the kernel can mount filesystems of this type."""
    try:
        with open(f"{proc_root}/filesystems", encoding="ascii") as file:
            known = {line.split()[-1] for line in file if line.strip()}
    except OSError:
        known = set()
    return name in known or has_module(name)


def has_dm_target(name: str) -> bool:
    """Say whether device-mapper has targets of this type. Without a module's file, needs root."""
    if has_module(f"dm-{name}") or has_module(name):
        return True
    try:
        return name in devmapper.target_types()
    except OSError:
        return False


def has_module(name: str, modules: str = "") -> bool:
    """Say whether a module of this name can be loaded, or is built into the kernel."""
    folder = modules or f"/lib/modules/{os.uname().release}"
    for index in ("modules.builtin", "modules.dep"):
        try:
            with open(f"{folder}/{index}", encoding="utf-8") as lines:
                if any(_module_of(line) == name.replace("-", "_") for line in lines):
                    return True
        except OSError:
            continue
    return False


def _module_of(line: str) -> str:
    """The module of a line such as ``kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz``."""
    file = posixpath.basename(line.partition(":")[0].strip())
    return file.partition(".ko")[0].replace("-", "_")


FEATURES: Final[dict[str, Callable[[], bool]]] = {"seccomp": has_seccomp, "vsock": has_vsock}
