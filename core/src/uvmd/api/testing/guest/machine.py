"""One QEMU process: started, spoken to over QMP, saved, restored, and killed at a deadline."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from uvmd.api.testing.guest import lock, profiles
from uvmd.api.testing.guest.errors import GuestError, GuestHung
from uvmd.api.testing.guest.profiles import CHANNELS, Files, Profile
from uvmd.api.testing.guest.qmp import Qmp

#: QEMU connects to our sockets within this time.
START_S = 20
TAIL_BYTES = 6000


class Machine:
    """A running QEMU. At most one test run of this machine has any (``lock``)."""

    def __init__(
        self, profile: Profile, files: Files, accelerator: str, target: str, *, incoming: bool = False
    ) -> None:
        self.profile = profile
        self.folder = files.folder
        self._process: subprocess.Popen[bytes] | None = None
        self.channels: dict[str, socket.socket] = {}
        self.qmp: Qmp
        lock.acquire(id(self))
        self.began = time.monotonic()
        try:
            join_files(files.initramfs, self.folder / "initrd")
            listeners = {name: _listen(self.folder / name) for name in ("qmp", *CHANNELS)}
            command = profiles.command_line(profile, files, accelerator, target, incoming=incoming)
            with (self.folder / "qemu.log").open("wb") as log:
                self._process = subprocess.Popen(
                    # A run that is killed takes its guest along: nobody else would end it.
                    ["setpriv", "--pdeathsig", "KILL", *command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            accepted = {name: self._accept(listener) for name, listener in listeners.items()}
            self.channels = accepted
            self.qmp = Qmp(accepted["qmp"])
        except BaseException:
            self.kill()
            raise

    def _accept(self, listener: socket.socket) -> socket.socket:
        deadline = time.monotonic() + START_S
        listener.settimeout(0.1)
        with listener:
            while True:
                try:
                    return listener.accept()[0]
                except TimeoutError:
                    if not self.running or time.monotonic() > deadline:
                        raise GuestError(f"QEMU did not start:\n{self.log()}") from None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def cpu_s(self) -> float:
        """CPU seconds that QEMU has used: what an emulated boot costs, however busy this machine is."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log(self) -> str:
        """What QEMU itself said."""
        with contextlib.suppress(OSError):
            return (self.folder / "qemu.log").read_text(errors="replace")
        return ""

    def console(self) -> str:
        """The end of what the guest printed on its serial console."""
        with contextlib.suppress(OSError):
            return (self.folder / "console").read_bytes()[-TAIL_BYTES:].decode(errors="replace")
        return ""

    def hung(self, what: str) -> GuestHung:
        """Kill the guest; return the exception that tells about it."""
        try:
            state = str(self.qmp("query-status").get("status"))
        except GuestError as refused:
            state = str(refused)
        error = GuestHung(
            f"{what}; the guest was killed (QEMU: {state}).\n--- QEMU said:\n{self.log()}"
            f"\n--- the end of its console:\n{self.console()}"
        )
        self.kill()
        return error

    # -- saving and restoring (QEMU's migration, with the memory left in its file)

    def save(self, state: Path) -> None:
        """Write the devices' state to a file and end; the memory file then belongs to it."""
        self.qmp("stop")
        self._keep_memory_out()
        self.qmp("migrate", uri=f"exec:cat >{state}")
        deadline = time.monotonic() + START_S
        while (status := self.qmp("query-migrate").get("status")) != "completed":
            if status == "failed" or time.monotonic() > deadline:
                raise self.hung(f"saving the guest ended as {status}")
            time.sleep(0.01)
        self.kill()

    def restore(self, state: Path) -> None:
        """Go on where ``save`` stopped; the machine was started with ``incoming``."""
        self._keep_memory_out()
        self.qmp("migrate-incoming", uri=f"exec:cat {state}")
        deadline = time.monotonic() + START_S
        while self.qmp("query-status")["status"] == "inmigrate":
            if time.monotonic() > deadline:
                raise self.hung("the guest was not restored in time")
            time.sleep(0.005)
        self.qmp("cont")

    def _keep_memory_out(self) -> None:
        capability = {"capability": "x-ignore-shared", "state": True}
        self.qmp("migrate-set-capabilities", capabilities=[capability])

    def kill(self) -> None:
        """End QEMU; nothing in the guest is asked. May be called twice."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        for channel in self.channels.values():
            channel.close()
        self.channels = {}
        lock.release(id(self))


def short_folder() -> Path:
    """Return a new folder with a path that is short enough for sockets below it."""
    return Path(tempfile.mkdtemp(prefix="uvg-", dir="/tmp"))


def join_files(parts: Sequence[Path], target: Path) -> None:
    """Write several archives into one file; the kernel unpacks them in turn."""
    with target.open("wb") as out:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, out)


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(1)
    return listener
