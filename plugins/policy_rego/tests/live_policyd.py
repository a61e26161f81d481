"""policyd as a real process below a real monitor; the test is the daemon."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.daemon import wait_until
from support.live_monitor import LiveMonitor, StandIn
from uvmd.api import Environment
from uvmd.api.testing import fake_environment
from uvmd.daemon.services import Services
from uvmd.host.state import FileState
from uvmd_policy_rego.config import PolicyRegoConfig
from uvmd_policy_rego.enforcer import RegoEnforcer, encode, make
from uvmd_policy_rego.remote import Remote

DISTRIBUTION = "uvmd-policy-rego"


class Vm:
    """A monitor, and one daemon after the other."""

    def __init__(self, monitor: LiveMonitor, folder: Path) -> None:
        self.monitor = monitor
        self._folder = folder
        self._made: list[RegoEnforcer] = []
        self._daemon: StandIn = monitor.next_daemon()
        self._services = self._greeted()

    def _greeted(self) -> Services:
        services = Services(self._daemon.link, f"{self._folder}/services")
        services.take_up(self._daemon.greet())
        return services

    def restart_daemon(self) -> None:
        """End the daemon, and be the next one."""
        self.hang_up()
        self._daemon.exit(1)
        self._daemon = self.monitor.next_daemon()
        self._services = self._greeted()

    def environment(self, **limits: float) -> Environment:
        # What is denied for another reason must not be for a machine that is busy.
        config = PolicyRegoConfig.model_validate({"decision_timeout_s": 60} | limits)
        state = FileState(f"{self._folder}/state.json")
        return fake_environment(config, state=state, service=self._services.of(DISTRIBUTION))

    def enforcer(self, text: str, **limits: float) -> RegoEnforcer:
        made = make(self.environment(**limits), encode(text))
        self._made.append(made)
        return made

    def hang_up(self) -> None:
        """Close the connections, as the end of a daemon does."""
        while self._made:
            channel = self._made.pop()._channel
            assert isinstance(channel, Remote)
            channel._hang_up()

    def _pids(self) -> list[int]:
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                stat = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                ours = b"policyd/__main__.py" in Path(f"/proc/{name}/cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if ours and int(stat[1]) == self.monitor.process.pid and stat[0] != "Z":
                found.append(int(name))
        return found

    def wait_for(self, count: int) -> list[int]:
        """Return the policyds once there are so many: a killed one takes its time to die."""
        wait_until(lambda: len(self._pids()) == count, 20, f"{count} policyds")
        return self._pids()

    @property
    def pid(self) -> int:
        (pid,) = self.wait_for(1)
        return pid


@contextmanager
def running(folder: Path) -> Iterator[Vm]:
    with LiveMonitor(folder) as monitor:
        vm = Vm(monitor, folder)
        try:
            yield vm
        finally:
            vm.hang_up()
