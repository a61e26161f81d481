"""The real daemon as a child: `uvmd serve` in folders and a cgroup root of its own."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

from support import machine
from support.host import Connection, Host

#: Nothing of the caller's environment reaches the daemon but this.
ENVIRONMENT = {"PATH": "/sbin:/usr/sbin:/bin:/usr/bin"}
START_S = 15
STOP_S = 20


def children(pid: int) -> list[int]:
    """The direct children of a process, over all its threads."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # it may end, and so may its threads
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def command_line(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    return []


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_until(condition: Callable[[], Any], timeout_s: float = 10, what: str = "") -> Any:
    """Poll for something that has no event a test could wait for. Returns the truthy value."""
    deadline = time.monotonic() + timeout_s
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what or condition}"
        time.sleep(0.01)


AnyDaemon = TypeVar("AnyDaemon", bound="Daemon")


class Daemon:
    """One `uvmd serve` and the host it dials.

    Args:
        runtime: crun or runc, or a path.
        options: flags by option key, say ``{"log-level": "debug"}``.
        environment: further variables.
        stdio: the bridge runs over descriptors 0 and 1 instead of a socket.
        program: what is executed, with its arguments; default ``uvmd serve`` with flags.
    """

    def __init__(
        self,
        *,
        runtime: str = "crun",
        options: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        stdio: bool = False,
        program: Sequence[str] | None = None,
        folder: Path | None = None,
    ) -> None:
        # Short, and not pytest's: paths of unix sockets end at 107 bytes.
        self.folder = folder or Path(tempfile.mkdtemp(prefix="uv-", dir="/tmp"))
        self.run_dir = self.folder / "run"
        self.bundles = self.folder / "gcs"
        self.log_path = self.folder / "log"
        self.bundles.mkdir(exist_ok=True)
        self.host = Host(self.folder, self.bundles)
        self.pods = f"/uvmd-test-{secrets.token_hex(4)}"
        self.runtime = runtime
        self.stdio = stdio
        self.options: dict[str, str] = {
            "transport": f"stdio:{self.host.address}" if stdio else self.host.address,
            "paths-run-dir": str(self.run_dir),
            "paths-bundle-roots": str(self.bundles),
            "cgroups-pods": self.pods,
            "runtime-name": runtime,
            **(options or {}),
        }
        self.environment = {**ENVIRONMENT, **(environment or {})}
        self.program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self.exit_status: int | None = None
        self._bridge: Connection | None = None
        self._daemon_killed = False
        #: The whole log, once the folders are gone.
        self.last_log = ""
        #: The root file system of containers, if it is not the one that all tests share.
        self.root: Path | None = None

    # -- life

    def argv(self) -> list[str]:
        if self.program is not None:
            return list(self.program)
        flags = [f"--{key}={value}" for key, value in self.options.items()]
        return [str(machine.BIN / "uvmd"), "serve", *flags]

    def start(self) -> Daemon:
        self._log = self.log_path.open("ab")
        pipe = subprocess.PIPE if self.stdio else subprocess.DEVNULL
        self._process = subprocess.Popen(
            self.argv(),
            stdin=pipe,
            stdout=pipe if self.stdio else subprocess.DEVNULL,
            stderr=self._log,
            env=self.environment,
            cwd=self.folder,
            start_new_session=True,
            bufsize=0,
        )
        return self

    def connect(self, *, negotiate: bool = True, timeout_s: float = START_S) -> Connection:
        """The daemon's next bridge connection; shows the log if there is none.

        After ``kill_daemon`` that is the one there was, unless we have closed it: the next
        daemon takes it over as it is.
        """
        if self._daemon_killed and self._bridge is not None and self._bridge.is_open:
            return self._bridge
        try:
            if not self.stdio:
                self._bridge = self.host.accept(timeout_s, negotiate=negotiate)
                return self._bridge
            process = self.process
            assert process.stdin is not None
            assert process.stdout is not None
            made = Connection(self.host, os.dup(process.stdout.fileno()), os.dup(process.stdin.fileno()))
            process.stdin.close()
            process.stdout.close()
            if negotiate:
                made.negotiate()
            return made
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.describe()}") from None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    @property
    def monitor_pid(self) -> int:
        return self.process.pid

    @property
    def daemon_pid(self) -> int:
        """The process that decides, a child of the monitor."""
        return int(wait_until(self.find_daemon, what="the monitor has a daemon"))

    def find_daemon(self) -> int | None:
        for pid in children(self.monitor_pid):
            words = command_line(pid)
            # As gcs it is another module of the same package.
            if any(word.startswith("uvmd.daemon") or word.endswith("scripted_daemon.py") for word in words):
                return pid
        return None

    def kill_daemon(self) -> int:
        """SIGKILL to the daemon alone; returns the pid that is gone."""
        pid = self.daemon_pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_running(pid), what="the daemon is dead")
        self._daemon_killed = True
        return pid

    def runs(self, pid: int) -> bool:
        """Whether a process of the machine that it is in charge of runs."""
        return is_running(pid)

    def stop(self, sig: int = signal.SIGTERM, timeout_s: float = STOP_S) -> int:
        """Send a signal to the monitor and return the exit status."""
        if self.process.poll() is None:
            os.kill(self.monitor_pid, sig)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = STOP_S) -> int:
        try:
            self.exit_status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running {timeout_s} s after the stop\n{self.describe()}") from None
        return self.exit_status

    def close(self) -> None:
        """End everything that is left and remove the folders; asserts nothing."""
        if self._process is not None and self._process.poll() is None:
            for pid in [*children(self.monitor_pid), self.monitor_pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait(10)
        streams = [self._log] + ([self._process.stdin, self._process.stdout] if self._process else [])
        for stream in streams:
            if stream:
                stream.close()
        self.host.close()
        self.last_log = self.log_text()
        self._remove_containers()
        self._unmount_all()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _unmount_all(self) -> None:
        """After a failure: what a daemon mounted in its folder would keep the folder alive."""
        points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for point in reversed([point for point in points if point.startswith(f"{self.folder}/")]):
            subprocess.run(["umount", "-l", point], check=False, capture_output=True)

    def _remove_containers(self) -> None:
        """After a failure: kill what still runs in our cgroups, and remove those."""
        for hierarchy in machine.cgroup_hierarchies():
            root = hierarchy / self.pods.lstrip("/")
            for folder in sorted([root, *root.rglob("*")], reverse=True):
                if not folder.is_dir():
                    continue
                with contextlib.suppress(OSError):
                    for pid in (folder / "cgroup.procs").read_text().split():
                        os.kill(int(pid), signal.SIGKILL)
                for _ in range(50):
                    try:
                        folder.rmdir()
                        break
                    except FileNotFoundError:
                        break
                    except OSError:
                        time.sleep(0.02)

    # -- what it says

    def log_text(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else self.last_log

    def log_lines(self) -> list[dict[str, Any]]:
        """Every log line; each must be one JSON object with time, level and msg."""
        lines = []
        for text in self.log_text().splitlines():
            line = json.loads(text)
            assert {"time", "level", "msg"} <= line.keys(), text
            lines.append(line)
        return lines

    def describe(self) -> str:
        status = self._process.poll() if self._process else None
        state = "running" if status is None else f"ended with status {status}"
        return f"--- {' '.join(self.argv()[:2])} is {state}; the end of its log:\n{self.log_text()[-6000:]}"


@contextlib.contextmanager
def started(daemon: AnyDaemon) -> Iterator[AnyDaemon]:
    """Start a daemon; at the end it must stop by SIGTERM with status 0 and leave nothing."""
    try:
        daemon.start()
        yield daemon
        if daemon.exit_status is None:
            assert daemon.stop() == 0, daemon.describe()
    finally:
        daemon.close()


def running(**options: Any) -> contextlib.AbstractContextManager[Daemon]:
    """A daemon that is started, and must stop well."""
    return started(Daemon(**options))
