"""Switching the machine off, where the operator has said that it is ours to switch."""

from __future__ import annotations

import logging
import os

from uvmd.errors import Failed, Refused

log = logging.getLogger(__name__)


def power_off(agent: bool) -> bool:
    """Write out the disks and switch off; does not return when it works.

    Raises:
        Refused: ``[vm] agent`` is not set, so the machine may be anybody's.
        Failed: the kernel refused.
    """
    if not agent:
        raise Refused("power-off is not permitted: [vm] agent is false")
    from uvmd.linux import syscalls

    log.warning("power-off was requested, switching the machine off")
    os.sync()
    try:
        syscalls.power_off()
    except OSError as error:
        raise Failed(f"power-off: {error.strerror}") from error
    return True
