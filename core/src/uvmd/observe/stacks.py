"""Where an error came from: functions and lines, and never a value.

The standard library's tracebacks show source lines and the exception's text; the text of
a KeyError or ValueError is a piece of what a host sent.
"""

from __future__ import annotations

import os
from typing import NamedTuple

_MAX_PLACES = 64
_MAX_CHAIN = 16


class Place(NamedTuple):
    """One frame of a stack."""

    module: str
    function: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.module}.{self.function} ({self.file}:{self.line})"


def places_of(error: BaseException) -> list[Place]:
    """Return where ``error`` came from, outermost first; of a very deep stack the inner end."""
    places = []
    where = error.__traceback__
    while where is not None:
        code = where.tb_frame.f_code
        module = where.tb_frame.f_globals.get("__name__", "?")
        places.append(Place(module, code.co_name, os.path.basename(code.co_filename), where.tb_lineno))
        where = where.tb_next
    return places[-_MAX_PLACES:]


def stack_of(error: BaseException) -> str:
    """Return where ``error`` and what led to it were raised, one place a line."""
    parts: list[str] = []
    cause: BaseException | None = error
    for _ in range(_MAX_CHAIN):
        if cause is None:
            break
        parts.append(type(cause).__name__)
        parts += [f"  {place}" for place in places_of(cause)]
        cause = cause.__cause__ or cause.__context__
    return "\n".join(parts)
