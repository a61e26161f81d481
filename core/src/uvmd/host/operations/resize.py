"""Set the size of a process's terminal (spec bridge.md 6.8). No policy question."""

from __future__ import annotations

from uvmd.errors import Failed
from uvmd.host.context import Context
from uvmd.host.operations.signal import find_process


def resize(ctx: Context, container_id: str, pid: int, *, width: int, height: int) -> None:
    """Set columns and rows; nothing happens once the terminal is closed.

    Raises:
        ContainerNotFound, InvalidState, ProcessNotFound: it is not known.
        Failed: the process has no terminal.
    """
    process = find_process(ctx, container_id, pid)
    try:
        ctx.slots.resize(process.slot, height, width)
    except OSError as error:
        raise Failed(f"resize of process {pid}: {error.strerror or error}") from error
