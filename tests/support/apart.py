"""Monitor and daemon as two commands, as a service manager runs them; the test is the manager."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from support import machine
from support.daemon import STOP_S, Daemon, wait_until


class Apart(Daemon):
    """`uvmd monitor`, and `uvmd serve` beside it whenever the test starts one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.link = self.folder / "link"
        self._daemons: list[subprocess.Popen[bytes]] = []

    def argv(self) -> list[str]:
        return [str(machine.BIN / "uvmd"), "monitor", "--listen", str(self.link)]

    def start(self) -> Daemon:
        super().start()
        wait_until(self.link.exists, what="the monitor listens")
        self.start_daemon()
        return self

    def start_daemon(
        self,
        *,
        flags: Mapping[str, str] | None = None,
        around: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start one more. ``around``: the command is run by this one."""
        options = {**self.options, **(flags or {})}
        words = [str(machine.BIN / "uvmd"), "serve", *(f"--{key}={value}" for key, value in options.items())]
        assert self._log is not None
        made = subprocess.Popen(
            [*around, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            env={**self.environment, **(environment or {}), "UVMD_MONITOR_SOCKET": str(self.link)},
            cwd=self.folder,
        )
        self._daemons.append(made)
        return made

    def end_daemon(self, number: int = signal.SIGTERM) -> int:
        """Signal the daemon that runs; return its status."""
        (running,) = [one for one in self._daemons if one.poll() is None]
        os.kill(running.pid, number)
        self._daemon_killed = True  # the bridge connection outlives it
        return running.wait(STOP_S)

    def find_daemon(self) -> int | None:
        return next((one.pid for one in self._daemons if one.poll() is None), None)

    def close(self) -> None:
        for one in self._daemons:
            if one.poll() is None:
                one.kill()
            one.wait()
        super().close()


@contextlib.contextmanager
def running_apart(**options: Any) -> Iterator[Apart]:
    """Both, started; at the end the monitor must stop by SIGTERM with status 0."""
    made = Apart(**options)
    try:
        made.start()
        yield made
        if made.exit_status is None:
            assert made.stop() == 0, made.describe()
    finally:
        made.close()
