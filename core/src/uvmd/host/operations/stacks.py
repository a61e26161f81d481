"""A readable dump of what every thread is doing (spec bridge.md 6.11)."""

from __future__ import annotations

import sys
import threading

from uvmd.host.context import Context


def dump_stacks(ctx: Context) -> str:
    """Return the stacks of all threads by name.

    Raises:
        PolicyDenied: the policy said no.
    """
    with ctx.changing(who="dump stacks"):
        ctx.gate.ask("dump_stacks", {}, "dump stacks denied due to policy: ")
    return format_stacks()


def format_stacks() -> str:
    """Describe every thread: name, what it is for, innermost call last. No values of variables."""
    import traceback

    names = {thread.ident: thread for thread in threading.enumerate()}
    parts = []
    for ident, frame in sorted(sys._current_frames().items()):
        thread = names.get(ident)
        name = "unknown thread" if thread is None else thread.name
        kind = "" if thread is None or not thread.daemon else ", daemon"
        lines = "".join(traceback.format_stack(frame))
        parts.append(f"Thread {name} ({ident:#x}{kind}):\n{lines}")
    return f"{len(parts)} threads\n\n" + "\n".join(parts)
