"""What a plugin's environment is made of: the daemon's link, its state folder, the platform."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from uvmd.api.environment import State
from uvmd.daemon.services import Services
from uvmd.errors import DeadlineExceeded
from uvmd.linux.platform import find_platform
from uvmd.monitor.link import Completed, Link
from uvmd.oci.runtime import DEFAULT_PATH

__all__ = ["Runner", "Services", "find_platform", "states_in"]


class Runner:
    """Implements ``api.Run`` with the monitor as the parent of what is run."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def __call__(
        self,
        argv: Sequence[str],
        *,
        deadline: float,
        stdin: bytes = b"",
        fds: Sequence[int] = (),
        limit_bytes: int = 65536,
    ) -> Completed:
        """Run a command to completion; see ``api.Run``.

        Raises:
            DeadlineExceeded: the deadline had passed before it could be started.
        """
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise DeadlineExceeded(f"run {argv[0]}: the deadline has passed")
        return self._link.run(
            argv, env={"PATH": DEFAULT_PATH}, stdin=stdin, deadline_s=left_s, limit_bytes=limit_bytes, fds=fds
        )


def states_in(run_dir: str) -> Callable[[str], State]:
    """Return what makes the journalled state of a distribution."""
    from uvmd.host.state import FileState

    folder = f"{run_dir}/plugins"
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return lambda distribution: FileState(f"{folder}/{distribution}.json")
