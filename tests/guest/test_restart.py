"""Bad days of uvmd as systemd runs it: killed over and over, and thrown at; the host notices nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from guest.harness.code import ROOTFS
from guest.harness.daemon import LOG
from guest.harness.guest import Guest
from soak.malformed import CONFIG, STANCES, Onslaught
from soak.restarts import Ordeal
from support.daemon import wait_until
from support.demo_restart import show
from support.host import Connection

#: Phases for which the daemon need not be held at a place.
PHASES = ("half-read request", "half-written answer", "mid-relay", "anywhere")


def _runs(pid: int) -> bool:
    import os

    return os.path.exists(f"/proc/{pid}/status")


def _kill(pid: int) -> None:
    import os
    import signal

    os.kill(pid, signal.SIGKILL)


class Service:
    """The guest's uvmd, with the ways that a daemon of the wire tests has."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._bridge: Connection | None = None
        self.host = guest.host
        self.root = Path(ROOTFS)
        self.runtime = "crun, in a guest"
        self.folder = Path("/run/bad-days")
        self.bundles = Path("/run/gcs")

    def start(self) -> None:
        """systemd has."""

    def connect(self, *, negotiate: bool = True) -> Connection:
        """The guest's connection, or the one that uvmd makes after we have closed it."""
        if self._bridge is None:
            self._bridge = self._guest.bridge
        elif not self._bridge.is_open:
            self._guest.hang_up()
            self._bridge = self._guest.connect(negotiate=negotiate)
        return self._bridge

    @property
    def monitor_pid(self) -> int:
        return self._guest.daemon.pids["monitor"]

    @property
    def daemon_pid(self) -> int:
        """Once it is there: systemd may only now be starting it."""
        return int(wait_until(self.find_daemon, 30, "systemd starts the daemon"))

    def find_daemon(self) -> int | None:
        return self._guest.daemon.pids.get("daemon")

    def kill_daemon(self) -> int:
        pid = self.daemon_pid
        self._guest.call(_kill, pid)
        return pid

    def runs(self, pid: int) -> bool:
        return self._guest.call(_runs, pid)

    def log_lines(self) -> list[dict[str, Any]]:
        text = self._guest.read(LOG) + self._guest.sh("journalctl -u uvmd-monitor -o cat")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def describe(self) -> str:
        return self._guest.daemon.log()


def test_the_restart_demo_holds_for_the_service(guest: Guest) -> None:
    show(Service(guest), containers=2, kills=1)  # type: ignore[arg-type]
    guest.hang_up()


def test_kills_of_the_service_lose_nothing(guest: Guest) -> None:
    seed = int(os.environ.get("UVMD_TEST_SEED") or int.from_bytes(os.urandom(4)))
    made = Ordeal(Service(guest), seed, containers=2)  # type: ignore[arg-type]
    made.phases = {name: made.phases[name] for name in PHASES}
    try:
        made.run(kills=len(PHASES), each=1)
        made.end()
    except BaseException as error:
        error.add_note(f"seed {seed}; hit so far: {dict(made.hit)}")
        raise
    guest.hang_up()


@pytest.mark.slow
def test_no_malformed_input_harms_the_service(fresh_guest: Guest) -> None:
    fresh_guest.daemon.configure(CONFIG)
    # It would switch the machine off when it is asked to, as it is asked here.
    fresh_guest.daemon.restart({"vm-agent": "false"})
    seed = int(os.environ.get("UVMD_TEST_SEED") or int.from_bytes(os.urandom(4)))
    made = Onslaught(STANCES[0], seed, Service(fresh_guest))  # type: ignore[arg-type]
    try:
        made.start()
        before = fresh_guest.daemon.pids
        made.throw(1000)
        made.exec_once()
        made.end()
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise
    assert not made.wrong, f"seed {seed}: {made.wrong[:3]}"
    assert fresh_guest.daemon.pids == before
    made.bridge.close()
    fresh_guest.assert_kernel_is_calm()
