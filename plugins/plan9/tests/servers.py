"""A host that can be dialled, and a kernel that knows 9p: a tmpfs stands in for the share.

mount(8) and umount(8) are the real ones, run as the monitor runs them, with the real
arguments but for the type of the file system, which this machine's kernel may lack. What
a real server and a real 9p mount do is tested in the guest.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from support.leaks import descriptors_here
from uvmd.api.testing import Finished, MemoryState, Workbench, fake_environment
from uvmd.linux import mounts
from uvmd_plan9 import plugin
from uvmd_plan9.config import Plan9Config

TYPE = "MappedDirectory"


class Host:
    """Listens nowhere: a dial gives one end of a socket pair, the test has the other."""

    def __init__(self) -> None:
        self.dialled: list[int] = []
        self.ends: list[socket.socket] = []
        self.refusal: OSError | None = None

    def dial(self, port: int, deadline: float) -> int:
        assert deadline > time.monotonic()
        if self.refusal is not None:
            raise self.refusal
        ours, theirs = socket.socketpair()
        self.dialled.append(port)
        self.ends.append(theirs)
        return ours.detach()

    def gone(self) -> bool:
        """Whether every connection has been closed by the guest."""
        for end in self.ends:
            end.settimeout(2)
            if end.recv(1):
                return False
        return True


class Children:
    """``env.run`` with real children. ``meanwhile`` may stand in for one that hangs or fails."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.meanwhile: Callable[[list[str], float], Finished | None] = lambda argv, deadline: None

    def __call__(
        self,
        argv: Sequence[str],
        *,
        deadline: float,
        stdin: bytes = b"",
        fds: Sequence[int] = (),
        limit_bytes: int = 65536,
    ) -> Finished:
        self.calls.append(list(argv))
        if (ended := self.meanwhile(list(argv), deadline)) is not None:
            return ended
        words = ["tmpfs" if word == "9p" else word for word in argv]
        words = [_for_tmpfs(word) if word.startswith(("ro,", "rw,")) else word for word in words]
        return run_child(words, deadline, fds)


def _for_tmpfs(options: str) -> str:
    return f"{options.partition(',')[0]},size=1m"


def run_child(argv: list[str], deadline: float, fds: Sequence[int]) -> Finished:
    output, sink = os.pipe()
    # Above what the child gets, and nobody's: a long run has many descriptors open.
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100) for fd in (0, sink, sink, *fds)]
    actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(high)]
    actions += [(os.POSIX_SPAWN_CLOSE, fd) for fd in high]
    pid = os.posix_spawnp(argv[0], argv, {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}, file_actions=actions)
    for fd in (*high, sink):
        os.close(fd)
    timed_out = False
    while not (done := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            timed_out = True
        time.sleep(0.001)
    try:
        with open(output, "rb", closefd=False) as file:
            return Finished(os.waitstatus_to_exitcode(done[1]), file.read(), timed_out)
    finally:
        os.close(output)


class Vm:
    """A folder in which shares are mounted, and a workbench around the plugin."""

    def __init__(self, base: Path, **config: float) -> None:
        base.mkdir(exist_ok=True)
        self.base = base
        self.path = base / "c1" / "mounts" / "m0"
        self.host, self.run, self.state = Host(), Children(), MemoryState()
        self.config = Plan9Config(**config)
        self.records = str(base / "devices.json")
        self.benches: list[Workbench] = []
        self.bench = self.fresh_bench()

    def fresh_bench(self) -> Workbench:
        """The workbench of a daemon that was just started here."""
        environment = fake_environment(
            self.config,
            dial=lambda port, deadline: self.host.dial(port, deadline),
            run=self.run,
            state=self.state,
        )
        bench = Workbench(plugin.resource_types(), environment, records=self.records)
        self.benches.append(bench)
        return bench

    def close(self) -> None:
        """Close what a daemon would keep, or the kernel take with it at its end."""
        for bench in self.benches:
            shares = bench.types[TYPE].handler()._shares  # type: ignore[attr-defined]
            for target in list(shares._connections):
                shares._forget(target)
        for end in self.host.ends:
            end.close()

    def settings(self, **changes: Any) -> dict[str, Any]:
        return {"MountPath": str(self.path), "Port": 564, "ShareName": "1", "ReadOnly": False, **changes}

    def add(self, **changes: Any) -> None:
        self.bench.add(TYPE, self.settings(**changes))

    def remove(self) -> None:
        """As a host of the first generation does."""
        self.bench.remove(TYPE, {"MountPath": str(self.path), "Port": 564, "ShareName": "1"})

    def mounted(self) -> list[mounts.MountInfo]:
        below = f"{self.base}/"
        return [one for one in mounts.mountinfo() if one.target.startswith(below)]

    def everything(self) -> dict[str, Any]:
        """All that must be as before when a change has failed; the test's own ends are closed."""
        for end in self.host.ends:
            end.close()
        self.host.ends.clear()
        tree = sorted(str(path.relative_to(self.base)) for path in self.base.rglob("*"))
        bench = self.bench
        return {
            "mounts": [one.target for one in self.mounted()],
            "tree": [path for path in tree if not path.startswith("devices.json")],
            "table": bench.table.rows(),
            "record": bench.record(TYPE, f"path:{self.path}"),
            "marks": (bench.gate.inconsistent, bench.gate.degraded),
            "locks": bench.lock.table(),
            "descriptors": descriptors_here(),
        }
