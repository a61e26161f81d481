"""A daemon that a test can kill at an exact place (``holding_daemon.py``)."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import uvmd
from support import machine
from support.daemon import Daemon, children, command_line, started, wait_until

PROGRAM = Path(__file__).parent / "holding_daemon.py"
MONITOR = Path(uvmd.__file__).parent / "monitor" / "__main__.py"


class HoldingDaemon(Daemon):
    """``kill_at(place)`` ends it where it is held."""

    def argv(self) -> list[str]:
        python = str(machine.BIN / "python")
        flags = [f"--{key}={value}" for key, value in self.options.items()]
        # As `uvmd serve` does it, with another program in the daemon's place.
        return [
            *(python, "-I", "-S", str(MONITOR), "--", python, "-I", str(PROGRAM)),
            *(f"--hold={self.folder}", *flags),
        ]

    def find_daemon(self) -> int | None:
        found = [pid for pid in children(self.monitor_pid) if str(PROGRAM) in command_line(pid)]
        return found[0] if found else None

    def hold(self, place: str) -> None:
        """Have the daemon stop when it next comes to a place."""
        (self.folder / f"hold-{place}").touch()

    def kill_at(self, place: str, timeout_s: float = 20) -> int:
        """Wait until the daemon is held there, kill it and wait for the next; returns its pid."""
        held = self.folder / f"held-{place}"
        wait_until(held.exists, timeout_s, f"held at {place}")
        held.unlink()
        before = self.kill_daemon()
        return int(
            wait_until(
                lambda: (pid := self.find_daemon()) not in (None, before) and pid, 20, "the next daemon"
            )
        )


def holding(**options: Any) -> contextlib.AbstractContextManager[HoldingDaemon]:
    """As ``support.daemon.running``."""
    return started(HoldingDaemon(**options))
