"""uvmd in the guest: the image's own systemd service, with options from the manager's environment."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from guest.harness.errors import CommandFailed, GuestError

if TYPE_CHECKING:
    from guest.harness.guest import Guest

LOG = "/run/uvmd.log"
SETTINGS = "/etc/uvmd/uvmd.toml"
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


def _append(path: str, text: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)


class Daemon:
    """The service ``uvmd.service`` of one guest."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._environment: dict[str, str] = {}

    def configure(self, settings: str) -> None:
        """Append lines of TOML to uvmd's file; they count from its next start."""
        if settings:
            self._guest.call(_append, SETTINGS, f"\n{settings}\n")

    def start(self, options: Mapping[str, str] | None = None) -> None:
        """Start it, with options as ``{"runtime-name": "runc"}``; return when it dials the host."""
        self._environment = {
            "UVMD_LOG_FILE": LOG,
            **{f"UVMD_{key.upper().replace('-', '_')}": value for key, value in (options or {}).items()},
        }
        words = (shlex.quote(f"{key}={value}") for key, value in self._environment.items())
        # One after the other in one shell: each costs a tenth of a second here.
        try:
            self._guest.sh(
                f"systemctl set-environment {' '.join(words)}; systemctl start uvmd.service; result=$?; "
                f"systemctl unset-environment {' '.join(self._environment)}; exit $result",
                timeout_s=START_S,
            )
        except CommandFailed as error:
            raise CommandFailed(f"uvmd did not start: {error}\n{self.log()}") from None

    def restart(self, options: Mapping[str, str] | None = None) -> None:
        """Stop it and start it with other options."""
        self.stop()
        self.start(options)

    def stop(self) -> None:
        """Stop the service; uvmd takes its containers down first."""
        self._guest.hang_up()
        self._guest.sh("systemctl stop uvmd.service", timeout_s=START_S)

    @property
    def state(self) -> dict[str, str]:
        """What systemd says: ActiveState, Result, NRestarts, ExecMainStatus."""
        names = "ActiveState,SubState,Result,NRestarts,ExecMainStatus"
        text = self._guest.sh(f"systemctl show uvmd.service -p {names}")
        return dict(line.split("=", 1) for line in text.splitlines())

    @property
    def pids(self) -> dict[str, int]:
        """The processes ``monitor`` and ``daemon``, those that run."""
        return self._guest.call(_pids)

    def kill(self) -> int:
        """SIGKILL to the process that decides; return its pid. The monitor starts another."""
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
        # The image as it is delivered logs to the journal, uvmd in a saved guest to a file.
        return self._guest.sh(f"tail -c 8000 {LOG} 2>/dev/null || journalctl -u uvmd -o cat -n 40")
