"""One virtual machine as a test sees it: shell commands and functions in it, and its kernel's word."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from uvmd.api.testing.guest import devices
from uvmd.api.testing.guest.agent import Agent, Late
from uvmd.api.testing.guest.errors import CommandFailed, GuestError
from uvmd.api.testing.guest.machine import Machine
from uvmd.api.testing.guest.mirror import Mirror
from uvmd.api.testing.guest.profiles import Files, Profile

T = TypeVar("T")

#: The first answer of a restored guest.
WAKE_S = 30
#: Lines of the kernel that no test may cause. "MP-BIOS bug:" is the emulated timer's, on a busy machine.
ALARMS = re.compile(
    r"(?-i:BUG:)|WARNING:|Oops|general protection|Call Trace|blocked for more than|refcount_t|kernel panic"
    r"|UBSAN",
    re.IGNORECASE,
)
#: A trace begins this many lines below what it is about, at most.
TRACE_LINES = 6


def _wake(now: float, randomness: list[int]) -> None:
    """Set the clock and stir the random numbers: a restored guest has those of its snapshot."""
    import fcntl
    import os
    import struct
    import time

    time.clock_settime(time.CLOCK_REALTIME, now)
    data = bytes(randomness)
    fd = os.open("/dev/urandom", os.O_RDWR)
    fcntl.ioctl(fd, 0x40085203, struct.pack("ii", len(data) * 8, len(data)) + data)  # RNDADDENTROPY
    fcntl.ioctl(fd, 0x5207)  # RNDRESEEDCRNG
    os.close(fd)


def _kernel_log() -> list[str]:
    import os

    lines = []
    fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            try:
                lines.append(os.read(fd, 8192).decode(errors="replace").split("\n")[0])
            except BlockingIOError:
                return lines
            except BrokenPipeError:
                continue  # The ring has overtaken us: the next read is its oldest line.
    finally:
        os.close(fd)


class Vm:
    """A virtual machine with the tests' hands in it.

    Attributes:
        machine: QEMU; ``machine.qmp`` takes any QMP command.
        folder: for whatever the test needs outside; removed at the end.
        hosts: what listens in this folder as ``host`` or ``host_N`` can be dialled in the guest.
    """

    def __init__(
        self, profile: Profile, files: Files, accelerator: str, target: str, *, incoming: bool = False
    ) -> None:
        self.profile = profile
        self.folder = files.folder
        self.hosts = files.folder / "hosts"
        self.closed = False
        self._alarms_from = -1
        self.machine = Machine(profile, files, accelerator, target, incoming=incoming)
        try:
            self.hosts.mkdir()
            self._agent = Agent(self.machine.channels["helper"])
            self._mirror = Mirror(self.machine.channels["mirror"], self.hosts)
        except BaseException:
            self.machine.kill()
            raise

    # -- in the guest

    def sh(self, command: str, *, timeout_s: float = 30, check: bool = True) -> str:
        """Run a shell command as root and return its output. Costs a tenth of a second.

        Raises:
            CommandFailed: its status was not 0; not with ``check=False``.
        """
        try:
            status, out, error = self._agent.shell(command, timeout_s)
        except Late as late:
            raise self.machine.hung(f"`{command}`: {late}") from None
        if check and status != 0:
            ended = f"ran longer than {timeout_s:g} s" if status == "timeout" else f"ended with {status}"
            raise CommandFailed(f"in the guest `{command}` {ended}:\n{out}{error}")
        return out

    def call(self, function: Callable[..., T], *args: Any, fork: bool = False, timeout_s: float = 30) -> T:
        """Run a function in the guest and return what it returns. Costs a millisecond.

        Its source is sent: it imports what it uses and touches no name around it. Arguments and
        result are JSON. ``fork`` runs it in a child, for what would change the helper's process.
        """
        try:
            return self._agent.call(function, *args, fork=fork, timeout_s=timeout_s)
        except Late as late:
            raise self.machine.hung(f"{function.__name__}(): {late}") from None

    def wait_until(self, function: Callable[..., T], *args: Any, timeout_s: float = 20, what: str = "") -> T:
        """Call a function in the guest until it returns something true."""
        deadline = time.monotonic() + timeout_s
        while not (value := self.call(function, *args)):
            if time.monotonic() > deadline:
                raise GuestError(f"not within {timeout_s:g} s: {what or function.__name__}")
            time.sleep(0.02)
        return value

    def read(self, path: str) -> str:
        """Return a file's text."""

        def read(path: str) -> str:
            with open(path, encoding="utf-8", errors="replace") as file:
                return file.read()

        return self.call(read, path)

    # -- hardware

    def image(self, name: str, size_mib: int) -> Path:
        """Return a new sparse file to be used as a disk."""
        path = self.folder / name
        with path.open("wb") as file:
            file.truncate(size_mib << 20)
        return path

    def add_disk(
        self, file: Path, *, lun: int, controller: int = 0, target: int = 0, read_only: bool = False
    ) -> devices.Disk:
        """Hot-plug a raw image as a SCSI disk; ``.wait()`` gives its path, ``.remove()`` pulls it."""
        return devices.add_disk(
            self, file, controller=controller, target=target, lun=lun, read_only=read_only
        )

    def add_pmem(self, file: Path, *, port: str = "rp1", read_only: bool = False) -> devices.Pmem:
        """Hot-plug a file as persistent memory (nvdimm in that profile, else virtio-pmem)."""
        return devices.add_pmem(self, file, port=port, read_only=read_only)

    def add_pci(self, driver: str = "edu", *, port: str = "rp2", **arguments: Any) -> devices.PciDevice:
        """Hot-plug a PCI device: ``edu`` is one that no driver takes."""
        ids = {"edu": ("0x1234", "0x11e8"), "virtio-net-pci": ("0x1af4", "0x1041")}[driver]
        return devices.add_pci(self, driver, port=port, ids=ids, **arguments)

    # -- the kernel's word

    def kernel_log(self) -> list[str]:
        """Every line of the kernel's log, without its header."""
        return [line.partition(";")[2] for line in self.call(_kernel_log)]

    def assert_kernel_is_calm(self, *, but_for: str = "") -> None:
        """Fail on a warning or worse that came since the guest was restored, or since the last call.

        ``but_for``: words of a line that the test wanted; the trace right below it is no alarm then.
        """
        lines = self.call(_kernel_log)
        numbers = [int(line.split(",")[1]) for line in lines]
        news = [line for line, n in zip(lines, numbers, strict=True) if n > self._alarms_from]
        self._alarms_from = max(numbers, default=-1)
        if but_for:
            wanted = {at for at, line in enumerate(news) if but_for in line}
            news = [line for at, line in enumerate(news) if wanted.isdisjoint(range(at - TRACE_LINES, at))]
        alarms = [line.partition(";")[2] for line in news if ALARMS.search(line)]
        assert not alarms, "the guest's kernel complains:\n" + "\n".join(alarms)

    # -- life

    def wake(self, timeout_s: float = WAKE_S) -> None:
        """Wait for the first answer, then give the guest the time of day."""
        try:
            self._agent.ping(timeout_s)
        except Late as late:
            raise self.machine.hung(str(late)) from None
        self.call(_wake, time.time(), list(os.urandom(64)))

    def be_steady(self) -> None:
        """Called before what the guest holds is looked at: be in the state between two tests."""

    def log(self) -> str:
        """The end of what uvmd has logged."""
        return self.sh("journalctl -u 'uvmd*' -o cat -n 60")

    def close(self) -> None:
        """End the machine and remove its folder. May be called twice."""
        if self.closed:
            return
        self.closed = True
        self._mirror.close()
        self.machine.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
