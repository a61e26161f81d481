"""Taking away whatever a runtime left of a container: init, cgroup, state.

Used where a create did not succeed, so any part may be missing and the runtime itself may be
what failed.
"""

from __future__ import annotations

import errno
import logging
import time

from uvmd.errors import UvmdError
from uvmd.host.containers import Container
from uvmd.host.context import Context
from uvmd.host.operations.start import kill_init

log = logging.getLogger(__name__)

_EMPTY_S = 5.0


def destroy(ctx: Context, container: Container) -> None:
    """Kill and delete the container, whatever is there of it.

    Raises:
        UvmdError, OSError: something is left behind.
    """
    kill_init(ctx, container.init)
    failure: UvmdError | None = None
    if ctx.runtime.program is not None:
        try:
            ctx.runtime.delete(container.id, force=True)
        except UvmdError as error:
            failure = error
    remove_cgroup(ctx, container.cgroup)
    if failure is not None:
        raise failure


def remove_cgroup(ctx: Context, path: str) -> None:
    """Kill and remove the group; the kernel lets a group go a little after its last process."""
    deadline = time.monotonic() + _EMPTY_S
    while True:
        ctx.cgroups.kill(path)
        try:
            ctx.cgroups.remove(path)
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        # Version 1 has no event for a group that became empty.
        time.sleep(0.005)
