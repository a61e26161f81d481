"""A readable dump of what every thread is doing (spec bridge.md 6.11)."""

from __future__ import annotations

import os
import sys
import threading
from types import FrameType
from typing import Final

from uvmd.host.context import Context
from uvmd.observe.stacks import Place

_MAX_PLACES: Final = 64


def dump_stacks(ctx: Context) -> str:
    """Return the stacks of all threads by name.

    Raises:
        PolicyDenied: the policy said no.
    """
    with ctx.changing(who="dump stacks"):
        ctx.gate.ask("dump_stacks", {}, "dump stacks denied due to policy: ")
    return format_stacks()


def format_stacks() -> str:
    """Describe every thread: its name, and where it is, innermost call last. No values."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    stacks = [
        f"thread {names.get(ident, 'of nobody')} ({ident:#x})\n"
        + "\n".join(f"  {place}" for place in _places(frame))
        for ident, frame in sorted(sys._current_frames().items())
    ]
    return f"{len(stacks)} threads\n\n" + "\n\n".join(stacks) + "\n"


def _places(frame: FrameType | None) -> list[Place]:
    places: list[Place] = []
    while frame is not None and len(places) < _MAX_PLACES:
        code = frame.f_code
        module = frame.f_globals.get("__name__", "?")
        places.append(Place(module, code.co_name, os.path.basename(code.co_filename), frame.f_lineno))
        frame = frame.f_back
    return places[::-1]
