"""uvmd in the guest: its two systemd services, with options from a file that its unit reads here."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from uvmd.api.testing.guest.errors import CommandFailed, GuestError

if TYPE_CHECKING:
    from guest.harness.guest import Guest

DAEMON, MONITOR = "uvmd.service", "uvmd-monitor.service"
LOG = "/run/uvmd.log"
SETTINGS = "/etc/uvmd/uvmd.toml"
#: Read by the daemon's unit (uvmd.service.d/testbed.conf) whenever systemd starts it.
OPTIONS = "/run/testbed/uvmd.env"
#: In the guest, under emulation.
START_S = 60


def _pids() -> dict[str, int]:
    import os

    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
            except OSError:
                continue
            if any(word.endswith(b"uvmd/monitor/__main__.py") for word in words[:5]):
                found["monitor"] = int(name)
            elif b"uvmd.daemon" in words:
                found["daemon"] = int(name)
    return found


def _write(path: str, text: str) -> None:
    import os

    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _append(path: str, text: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)


class Daemon:
    """The services ``uvmd-monitor.service`` and ``uvmd.service`` of one guest."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def configure(self, settings: str) -> None:
        """Append lines of TOML to uvmd's file; they count from its next start."""
        if settings:
            self._guest.call(_append, SETTINGS, f"\n{settings}\n")

    def start(self, options: Mapping[str, str] | None = None) -> None:
        """Start both, with options as ``{"runtime-name": "runc"}``; return when the host is dialled."""
        environment = {
            "UVMD_LOG_FILE": LOG,
            **{f"UVMD_{key.upper().replace('-', '_')}": value for key, value in (options or {}).items()},
        }
        lines = (f"{name}={shlex.quote(value)}\n" for name, value in environment.items())
        self._guest.call(_write, OPTIONS, "".join(lines))
        try:
            self._guest.sh(f"systemctl start {DAEMON}", timeout_s=START_S)
        except CommandFailed as error:
            raise CommandFailed(f"uvmd did not start: {error}\n{self.log()}") from None

    def restart(self, options: Mapping[str, str] | None = None) -> None:
        """Stop both and start them with other options."""
        self.stop()
        self.start(options)

    def stop(self) -> None:
        """Stop both; uvmd takes its containers down first.

        By a signal to the monitor: `systemctl stop` of it would stop the daemon first and the monitor
        would start another one, four seconds here.
        """
        self._guest.hang_up()
        if (monitor := self.pids.get("monitor")) is not None:
            self._guest.sh(f"kill -TERM {monitor}")
        deadline = time.monotonic() + START_S
        while self.pids:
            if time.monotonic() > deadline:
                raise GuestError(f"uvmd did not end within {START_S} s:\n{self.log()}")
            time.sleep(0.05)
        # The jobs of what ends by itself; a unit that was refused stays as it is.
        self._guest.sh(f"systemctl stop {DAEMON} {MONITOR}", timeout_s=START_S)

    @property
    def state(self) -> dict[str, str]:
        """What systemd says of the daemon: ActiveState, Result, NRestarts, ExecMainStatus."""
        return self.state_of(DAEMON)

    def state_of(self, unit: str) -> dict[str, str]:
        """The same of another unit."""
        names = "ActiveState,SubState,Result,NRestarts,ExecMainStatus"
        text = self._guest.sh(f"systemctl show {unit} -p {names}")
        return dict(line.split("=", 1) for line in text.splitlines())

    @property
    def pids(self) -> dict[str, int]:
        """The processes ``monitor`` and ``daemon``, those that run."""
        return self._guest.call(_pids)

    def kill(self) -> int:
        """SIGKILL to the process that decides; return its pid. systemd starts another."""
        pid = self.pids["daemon"]
        self._guest.sh(f"kill -9 {pid}")
        return pid

    def wait_for_another(self, than: int, timeout_s: float = 30) -> int:
        """Return the pid of the daemon that came after ``than``."""
        deadline = time.monotonic() + timeout_s
        while (pid := self.pids.get("daemon", than)) == than:
            if time.monotonic() > deadline:
                raise GuestError(f"no other daemon than {than} within {timeout_s:g} s:\n{self.log()}")
            time.sleep(0.05)
        return pid

    def wait_until_serving(self, *, not_as: int, timeout_s: float = 60) -> None:
        """Return once there is a monitor with another pid and its daemon serves."""
        deadline = time.monotonic() + timeout_s
        while self.pids.get("monitor", not_as) == not_as or self.state["ActiveState"] != "active":
            if time.monotonic() > deadline:
                raise GuestError(f"uvmd did not come back within {timeout_s:g} s:\n{self.log()}")
            time.sleep(0.2)

    def log(self) -> str:
        """The end of what it has logged."""
        # The daemon in a saved guest logs to a file; its monitor, and the image as delivered, to the journal.
        return self._guest.sh(f"tail -c 8000 {LOG} 2>/dev/null; journalctl -u 'uvmd*' -o cat -n 40")
