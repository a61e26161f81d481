"""OCI specifications as a host sends them: complete, and small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from support import rootfs

CAPABILITIES = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"]
PATH = "PATH=/bin"


def _mount(destination: str, type_: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": type_, "source": source, "options": list(options)}


def process(
    *args: str,
    terminal: bool = False,
    env: Sequence[str] = (PATH,),
    cwd: str = "/",
    user: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """An OCI process object."""
    return {
        "terminal": terminal,
        "user": dict(user or {"uid": 0, "gid": 0}),
        "args": list(args),
        "env": list(env),
        "cwd": cwd,
        "capabilities": {kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024}],
        "noNewPrivileges": True,
    }


def container(
    *args: str,
    root: Path | None = None,
    readonly: bool = True,
    namespaces: Sequence[str] = ("pid", "ipc", "uts", "mount", "network"),
    annotations: Mapping[str, str] | None = None,
    hostname: str = "box",
    **of_process: Any,
) -> dict[str, Any]:
    """The specification of a standalone container that runs ``args``."""
    return {
        "ociVersion": "1.0.2",
        "process": process(*args, **of_process),
        "root": {"path": str(root or rootfs.shared()), "readonly": readonly},
        "hostname": hostname,
        "mounts": [
            _mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
            _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            _mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666"),
            _mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
            _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro"),
            _mount("/tmp", "tmpfs", "tmpfs", "nosuid", "nodev", "mode=1777"),
        ],
        "annotations": dict(annotations or {}),
        "linux": {
            "namespaces": [{"type": name} for name in namespaces],
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "maskedPaths": ["/proc/kcore", "/proc/timer_list"],
            "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"],
        },
    }
