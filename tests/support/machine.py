"""Facts about the machine that runs the tests; nothing here is a judgement."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache"
BIN = ROOT / ".venv" / "bin"
RUNTIMES = ("crun", "runc")
CGROUPS = Path("/sys/fs/cgroup")
CGROUP2_MAGIC = 0x63677270


def _is_cgroup2(path: Path) -> bool:
    # os.statvfs hides the type; struct statfs begins with it.
    libc = ctypes.CDLL(None, use_errno=True)
    answer = (ctypes.c_long * 32)()
    return libc.statfs(os.fsencode(path), answer) == 0 and answer[0] == CGROUP2_MAGIC


@cache
def cgroup_mode() -> str:
    """``v2``, ``hybrid`` or ``v1`` (spec containers.md 3.1)."""
    if _is_cgroup2(CGROUPS):
        return "v2"
    return "hybrid" if _is_cgroup2(CGROUPS / "unified") else "v1"


@cache
def cgroup_hierarchies() -> tuple[Path, ...]:
    """Every mounted cgroup hierarchy."""
    if cgroup_mode() == "v2":
        return (CGROUPS,)
    return tuple(path for path in sorted(CGROUPS.iterdir()) if path.is_dir() and not path.is_symlink())


@cache
def runtime_path(name: str) -> str:
    """The runtime's program; fails where it is not installed (`make setup` does that)."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    assert path, f"{name} is not installed: make setup"
    return path


@cache
def runtime_version(name: str) -> str:
    first = subprocess.run([runtime_path(name), "--version"], capture_output=True, text=True, check=True)
    return first.stdout.split("\n")[0].split()[-1]


def describe() -> str:
    """One line for the head of a report."""
    found = [name for name in RUNTIMES if shutil.which(name)]
    versions = ", ".join(f"{name} {runtime_version(name)}" for name in found) or "no runtime"
    return f"{os.cpu_count()} cores, kernel {os.uname().release}, cgroups {cgroup_mode()}, {versions}"
