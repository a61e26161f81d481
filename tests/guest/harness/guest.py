"""A guest as a test sees it: a virtual machine, uvmd in it, and a host to talk to it."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from guest.harness import code, nine_p
from guest.harness.daemon import Daemon
from support import containers
from support.containers import Ran
from support.host import Connection, Gone, Host
from uvmd.api.testing.guest import devices
from uvmd.api.testing.guest.profiles import CONTROLLERS, Files, Profile
from uvmd.api.testing.guest.vm import Vm


class Guest(Vm):
    """One virtual machine and the host it talks to.

    Attributes:
        host: the fake host of the wire tests; it listens in ``folder``, outside.
        daemon: uvmd, the service in the guest.
    """

    def __init__(
        self, profile: Profile, files: Files, accelerator: str, target: str, *, incoming: bool = False
    ) -> None:
        super().__init__(profile, files, accelerator, target, incoming=incoming)
        self._bridge: Connection | None = None
        try:
            self.host = Host(self.hosts, Path("/run/gcs"))
        except BaseException:
            super().close()
            raise
        self.daemon = Daemon(self)

    # -- uvmd

    @property
    def bridge(self) -> Connection:
        """The negotiated connection of uvmd, made on first use and after ``hang_up``."""
        return self.bridge_within(30)

    def bridge_within(self, timeout_s: float) -> Connection:
        """The same, with another patience."""
        if self._bridge is None:
            self._bridge = self.connect(timeout_s=timeout_s)
        return self._bridge

    def connect(self, *, negotiate: bool = True, timeout_s: float = 30) -> Connection:
        """Take uvmd's next connection."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return self.host.accept(max(0.1, deadline - time.monotonic()), negotiate=negotiate)
            except Gone:
                continue  # One that a monitor made which has ended since.
            except AssertionError as error:
                console = self.machine.console()
                raise AssertionError(f"{error}\n{self.daemon.log()}\n--- the console:\n{console}") from None

    def hang_up(self) -> None:
        """Close the connection, if there is one; uvmd dials again."""
        if self._bridge is not None:
            self._bridge.close()
            self._bridge = None

    def run(self, *args: str, **of_spec: Any) -> Ran:
        """Run a container from create to delete, on the busybox of the code disk."""
        return containers.run(self.bridge, *args, root=code.ROOTFS, **of_spec)

    # -- hardware

    def serve_9p(self, folder: str) -> int:
        """Serve a folder of the guest over 9p, as a host would; return the port to dial."""
        return nine_p.serve(self, folder)

    # -- life

    def add_code(self, disk: Path) -> None:
        """Hot-plug the disk with the code under test and mount it."""
        node = "code"
        back = {"driver": "file", "filename": str(disk)}
        self.machine.qmp("blockdev-add", driver="raw", node_name=node, read_only=True, file=back)
        controller = CONTROLLERS.index(code.BUS.removesuffix(".0"))
        place = devices.Disk(self, controller, code.TARGET, 0)
        place.name = node
        place.plug(driver="scsi-hd", bus=code.BUS, **{"scsi-id": code.TARGET}, lun=0, drive=node)
        self.sh(f"mount -t erofs -o ro {place.wait()} {code.MOUNT}")

    def warm_up(self) -> None:
        """Bring what every test needs into memory."""
        self.sh("modprobe -a loop dm_mod dm_verity dm_crypt dm_integrity ext4 xfs 9p 9pnet_fd")
        assert self.run("/bin/true").exit_code == 0

    def settle(self) -> None:
        """Get ready to be saved: no connection, no frame under way."""
        self.hang_up()
        self.host.close()
        self.host.path.unlink(missing_ok=True)
        time.sleep(0.5)
        self._mirror.close()

    def log(self) -> str:
        return self.daemon.log()

    def close(self) -> None:
        if not self.closed:
            with contextlib.suppress(OSError):
                self.hang_up()
            self.host.close()
        super().close()
