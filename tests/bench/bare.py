"""What the bare tools take: the runtime by itself, with uvmd's bundle and cgroup depth.

Children are started with posix_spawn, which costs the least there is in Python, so that
the baseline is not slowed by the way it is measured.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support import machine

PR_SET_CHILD_SUBREAPER = 36
ENVIRONMENT = {"PATH": "/sbin:/usr/sbin:/bin:/usr/bin"}


#: After this the kernel has forgotten that processes were moved.
REST_S = 0.05


def rest() -> None:
    """Let what follows begin on a machine at rest.

    Moving a process to another cgroup takes a lock for which the kernel waits for all
    processors, 8 to 14 ms, unless somebody took it some milliseconds before. A life by itself
    pays that once. Right behind another one it is a matter of luck who does.
    """
    time.sleep(REST_S)


def become_subreaper() -> None:
    """Let inits that the runtime leaves behind become our children, so that we can wait for them."""
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


_NULL = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1, 2)]


def call(*argv: str, actions: Any = None) -> None:
    """Run a command to its end; it must succeed."""
    pid = os.posix_spawn(argv[0], argv, ENVIRONMENT, file_actions=_NULL if actions is None else actions)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, f"{' '.join(argv)} ended with {status}"


class Bare:
    """One runtime and one bundle, taken over from a container that uvmd made.

    ``renew`` is called before each life, outside of its time.
    """

    def __init__(
        self,
        runtime: str,
        config: dict[str, Any],
        folder: Path,
        renew: Callable[[], None] = lambda: None,
    ) -> None:
        self._renew = renew
        self.program = machine.runtime_path(runtime)
        self.bundle = folder / f"bare-{runtime}"
        self.bundle.mkdir()
        self._config = config
        # The same depth below the same root, so that the kernel has the same to do.
        self._cgroup = Path(config["linux"]["cgroupsPath"]).parent
        self._pid_file = self.bundle / "pid"

    def _new(self, args: list[str]) -> str:
        name = secrets.token_hex(32)
        self._config["linux"]["cgroupsPath"] = str(self._cgroup / name)
        self._config["process"]["args"] = args
        (self.bundle / "config.json").write_text(json.dumps(self._config))
        return name

    def create(self, name: str) -> int:
        call(
            self.program,
            "create",
            "--bundle",
            str(self.bundle),
            "--no-pivot",
            "--pid-file",
            str(self._pid_file),
            name,
        )
        return int(self._pid_file.read_text())

    def life(self, args: list[str]) -> float:
        """Create, start, the init's exit, delete; returns the seconds it took."""
        self._renew()
        name = self._new(args)
        rest()
        began = time.perf_counter()
        pid = self.create(name)
        call(self.program, "start", name)
        os.waitpid(pid, 0)
        call(self.program, "delete", name)
        return time.perf_counter() - began

    def start_container(self, args: list[str]) -> tuple[str, int]:
        name = self._new(args)
        pid = self.create(name)
        call(self.program, "start", name)
        return name, pid

    def exec(self, name: str, process_file: Path) -> float:
        """One foreground exec to its end; returns the seconds it took."""
        began = time.perf_counter()
        call(self.program, "exec", "--process", str(process_file), name)
        return time.perf_counter() - began

    def remove(self, name: str, pid: int) -> None:
        call(self.program, "kill", name, "9")
        os.waitpid(pid, 0)
        call(self.program, "delete", name)
