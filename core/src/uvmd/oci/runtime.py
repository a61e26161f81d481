"""The OCI runtime, crun or runc, driven through the monitor.

The monitor spawns the program, so that the container's processes become the monitor's
children and outlive the daemon. Every call gets a log file of its own: in a file that grows,
an old error would explain a new failure (spec containers.md 16.43). Signals do not pass
through here; the monitor sends them without a spawn.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from uvmd.errors import ContainerNotFound, DeadlineExceeded, RuntimeFailed
from uvmd.linux.files import unlink_if_there
from uvmd.observe.steps import step
from uvmd.oci.runtime_log import last_error, runtime_error

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KNOWN: Final = ("crun", "runc")  # in the order of preference


class Finished(Protocol):
    """What became of a program that the monitor ran."""

    @property
    def status(self) -> int: ...
    @property
    def timed_out(self) -> bool: ...
    @property
    def output(self) -> bytes: ...
    @property
    def pid(self) -> int: ...


class Runner(Protocol):
    """The part of the monitor's link that runs programs."""

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str = "/",
        stdin: bytes = b"",
        deadline_s: float,
        limit_bytes: int = 65536,
        slot: int = 0,
        pid_file: str = "",
        once: str = "",
    ) -> Finished: ...


def find_program(name: str, path: str) -> str | None:
    """Return the absolute path of a program, as execvp(3) would find it; None if it is nowhere."""
    if "/" in name:
        return name if os.access(name, os.X_OK) else None
    for directory in path.split(":"):
        candidate = f"{directory}/{name}"
        if directory.startswith("/") and os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return candidate
    return None


class OciRuntime:
    """Commands of one runtime.

    Args:
        runner: the monitor's link.
        name: a program's name or path; empty takes crun, else runc, whichever is there.
        work: called with a container id, gives the directory for its logs and pid files.
        no_pivot: the VM's root is the initial ramfs, where pivot_root(2) cannot work. Without
            that reason pivot_root is the safer way to change the root.
        timeout_s: a call that takes longer is killed.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        name: str,
        work: str,
        no_pivot: bool,
        timeout_s: float,
        path: str = DEFAULT_PATH,
    ) -> None:
        self._runner = runner
        self._names = (name,) if name else KNOWN
        self._work = work
        self._no_pivot = no_pivot
        self._timeout_s = timeout_s
        self._env = {"PATH": path}
        self._path = path
        self._program: str | None = None
        self._calls = itertools.count()

    @property
    def program(self) -> str | None:
        """The runtime's absolute path; None while there is none."""
        if self._program is None:
            found = (find_program(name, self._path) for name in self._names)
            self._program = next((program for program in found if program), None)
        return self._program

    def pid_file(self, container_id: str, slot: int) -> str:
        """The file in which a runtime leaves the pid of what it starts; the caller removes it."""
        return f"{self._work}/{container_id}/{slot}.pid"

    def remove_left_logs(self, container_id: str) -> None:
        """Remove the logs of calls that an earlier daemon, which was killed, has not ended.

        Raises OSError.
        """
        folder = f"{self._work}/{container_id}"
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return  # on its way, there or back
        for name in names:
            if name.endswith(".log") and not name.startswith(f"{os.getpid()}-"):
                unlink_if_there(f"{folder}/{name}")

    def create(self, container_id: str, bundle: str, *, slot: int, console_socket: str) -> int:
        """Make the container; its init waits to be started. Returns init's pid."""
        options = ["-b", bundle]
        if self._no_pivot:
            options.append("--no-pivot")
        return self._spawn(container_id, "create", options, slot, console_socket)

    def exec(self, container_id: str, process_file: str, *, slot: int, console_socket: str) -> int:
        """Start a process in a running container. Returns its pid."""
        options = ["-d", "--process", process_file]
        return self._spawn(container_id, "exec", options, slot, console_socket, once=f"exec {slot}")

    def start(self, container_id: str) -> None:
        """Let a created container's init run; once for a request, however often it is repeated."""
        self._call(container_id, "start", once="start")

    def delete(self, container_id: str, *, force: bool = False) -> None:
        """Remove what the runtime holds of a stopped container; ``force`` kills one that runs."""
        self._call(container_id, "delete", ["--force"] if force else [])

    def update(self, container_id: str, resources: bytes) -> None:
        """Change the limits of a container: ``resources`` is LinuxResources as JSON."""
        self._call(container_id, "update", ["--resources", "-"], stdin=resources)

    def status(self, container_id: str) -> str | None:
        """Return what the runtime says of a container (``created``, ``running``, ...); None: unknown."""
        import json

        try:
            finished = self._call(container_id, "state")
        except ContainerNotFound:
            return None
        try:
            return str(json.loads(finished.output)["status"])
        except (ValueError, KeyError, TypeError) as error:
            raise RuntimeFailed(f"{self._program} state {container_id}: answer cannot be read") from error

    def _spawn(
        self, container_id: str, command: str, options: list[str], slot: int, console: str, once: str = ""
    ) -> int:
        pid_file = self.pid_file(container_id, slot)
        options = [*options, "--pid-file", pid_file]
        if console:
            options += ["--console-socket", console]
        return self._call(container_id, command, options, slot=slot, pid_file=pid_file, once=once).pid

    def _call(
        self,
        container_id: str,
        command: str,
        options: Sequence[str] = (),
        *,
        stdin: bytes = b"",
        slot: int = 0,
        pid_file: str = "",
        once: str = "",
    ) -> Finished:
        """Run one command of the runtime.

        Raises:
            RuntimeFailed, or what :func:`runtime_error` makes of the runtime's last words.
            DeadlineExceeded: it was killed because it took too long.
        """
        program = self.program
        doing = f"{program} {command} {container_id}"
        if program is None:
            raise RuntimeFailed(
                f"{command} {container_id}: no OCI runtime, tried {' and '.join(self._names)}"
            )
        # Not a name that an earlier daemon, which was killed, has used and left.
        log = f"{self._work}/{container_id}/{os.getpid()}-{next(self._calls)}.log"
        argv = [program, "--log", log, "--log-format", "json", command, *options, container_id]
        try:
            with step("runtime", command):
                finished = self._runner.run(
                    argv,
                    env=self._env,
                    stdin=stdin,
                    deadline_s=self._timeout_s,
                    slot=slot,
                    pid_file=pid_file,
                    once=once,
                )
            if finished.status == 0 and not finished.timed_out:
                return finished
            if finished.timed_out:
                raise DeadlineExceeded(f"{doing}: killed after {self._timeout_s:g} s")
            words = last_error(_read(log), finished.output.decode("utf-8", "replace"))
            raise runtime_error(doing, words or _ending(finished.status))
        except OSError as error:
            self._program = None  # it may have been replaced; look for it again next time
            raise RuntimeFailed(f"{doing}: {error.strerror or error}") from error
        finally:
            unlink_if_there(log)


def _ending(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"killed by signal {-status}"


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""
