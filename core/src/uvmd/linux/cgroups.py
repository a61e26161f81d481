"""Control groups of versions 1 and 2, and of machines that mount both.

A *hybrid* machine has its controllers in version 1 and a version 2 tree besides, for
processes only; so it counts as version 1 here (spec containers.md 16.34). A group is named
by its path in every hierarchy, ``/pods/x``. Statistics are in ``cgroup_stats``.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

ROOT: Final = "/sys/fs/cgroup"
_CONTROLLER_PREFERENCE: Final = ("pids", "memory", "freezer", "devices", "cpu", "systemd")


@dataclass(frozen=True, slots=True)
class Cgroups:
    """The hierarchies of this machine.

    ``hierarchies`` maps a version 1 controller (or ``systemd``) to its mount point; it is
    empty on a version 2 machine, where ``unified`` is the one tree. On a hybrid machine
    ``unified`` is the extra tree; None if there is none.
    """

    hierarchies: dict[str, str] = field(default_factory=dict)
    unified: str | None = None

    @property
    def version(self) -> int:
        """1 or 2: where the controllers are."""
        return 1 if self.hierarchies else 2

    @property
    def hybrid(self) -> bool:
        """Whether a version 2 tree stands beside version 1 controllers."""
        return bool(self.hierarchies) and self.unified is not None

    def directories(self, path: str) -> list[str]:
        """Return the directory of the group ``path`` in every hierarchy, each once."""
        tops = dict.fromkeys(self.hierarchies.values())
        if self.unified is not None:
            tops[self.unified] = None
        return [top + path for top in tops]

    def process_directory(self, path: str) -> str:
        """Return the directory whose ``cgroup.procs`` is asked for the processes of a group."""
        if self.version == 2:
            return (self.unified or ROOT) + path
        for controller in _CONTROLLER_PREFERENCE:
            top = self.hierarchies.get(controller)
            if top is not None and os.path.isdir(top + path):
                return top + path
        return next(iter(self.hierarchies.values())) + path

    def processes(self, path: str) -> list[int]:
        """Return the pids in the group and in the groups below it. A vanished group has none."""
        return list(_processes(self.process_directory(path)))

    def kill(self, path: str) -> None:
        """Send SIGKILL to every process of the group and of those below it.

        With ``cgroup.kill`` (Linux 5.14, version 2) in one step; else by going over the
        members until none is new, since a member may fork meanwhile.
        """
        if self.unified is not None:
            try:
                _write(f"{self.unified}{path}/cgroup.kill", "1")
                if self.version == 2:
                    return
            except OSError:
                pass
        killed: set[int] = set()
        for _ in range(16):
            new = set(self.processes(path)) - killed
            if not new:
                return
            for pid in new:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            killed |= new

    def remove(self, path: str) -> None:
        """Remove the group and the groups below it in every hierarchy. Missing ones are fine."""
        for directory in self.directories(path):
            _remove_groups(directory)

    def remove_if_empty(self, path: str) -> None:
        """Remove the group itself where nothing is in it; never what is below it."""
        for directory in self.directories(path):
            try:
                os.rmdir(directory)
            except OSError:
                continue

    def ensure_group(self, path: str) -> None:
        """Make the group everywhere, able to hold processes and, on version 2, limited children."""
        if self.version == 2:
            top = self.unified or ROOT
            _enable_controllers(top)
            os.makedirs(top + path, mode=0o755, exist_ok=True)
            _enable_controllers(top + path)
            return
        for directory in self.directories(path):
            os.makedirs(directory, mode=0o755, exist_ok=True)
        cpuset = self.hierarchies.get("cpuset")
        if cpuset is not None:
            _inherit_cpuset(cpuset, path)

    def set_memory_limit(self, path: str, limit_bytes: int) -> None:
        """Limit the memory of a group. Raises OSError; ENOENT without a memory controller."""
        if self.version == 2:
            _write(f"{self.unified or ROOT}{path}/memory.max", str(limit_bytes))
            return
        top = self.hierarchies.get("memory")
        if top is None:
            raise FileNotFoundError(errno.ENOENT, "no memory controller is mounted", ROOT)
        _write(f"{top}{path}/memory.limit_in_bytes", str(limit_bytes))


def _write(path: str, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def read_file(path: str) -> bytes:
    """Read a file of a cgroup or of /proc whole."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(fd, 16384)
        if len(data) < 4096:  # such files come in at most a page a read
            return data
        while more := os.read(fd, 65536):
            data += more
        return data
    finally:
        os.close(fd)


def _processes(directory: str) -> Iterator[int]:
    try:
        text = read_file(f"{directory}/cgroup.procs")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return
        if error.errno != errno.EOPNOTSUPP:  # a threaded group does not list processes
            raise
        text = b""
    yield from map(int, text.split())
    # A link count of two is a directory without directories in it, here as in most filesystems.
    if os.stat(directory).st_nlink > 2:
        with os.scandir(directory) as entries:
            below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        for child in below:
            yield from _processes(child)


def _remove_groups(directory: str) -> None:
    try:
        os.rmdir(directory)
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
    with os.scandir(directory) as entries:
        below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    for child in below:
        _remove_groups(child)
    os.rmdir(directory)


def _enable_controllers(directory: str) -> None:
    """Let the children of a version 2 group have every controller that it has itself."""
    available = read_file(f"{directory}/cgroup.controllers").split()
    enabled = set(read_file(f"{directory}/cgroup.subtree_control").split())
    for name in available:
        if name not in enabled:
            try:
                # One by one: a controller that cannot be enabled must not keep the others back.
                _write(f"{directory}/cgroup.subtree_control", f"+{name.decode()}")
            except OSError:
                continue


def _inherit_cpuset(top: str, path: str) -> None:
    """Give a version 1 cpuset group its parent's CPUs and nodes; without them it takes no process."""
    directory = top
    for name in path.strip("/").split("/"):
        parent, directory = directory, f"{directory}/{name}"
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if not read_file(f"{directory}/{setting}").strip():
                _write(f"{directory}/{setting}", read_file(f"{parent}/{setting}").decode().strip())
