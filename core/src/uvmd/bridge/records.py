"""What an error response says beside its code (spec bridge.md 5.2), and never more.

A stack here is names of functions and lines; no value of a variable, no source line and
no text of an exception that we did not write ourselves is in it.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from uvmd.bridge.hresult import HResult, text_of
from uvmd.errors import UvmdError

#: ``Line`` of an error whose place is not known.
UNKNOWN_LINE = 0xFFFF_FFFF
_MODULE = "gcs"
_MAX_FRAMES = 64


def message_of(error: BaseException, code: HResult) -> str:
    """Return the text of ``error`` for a host.

    Ours are written to be shown. Of others only the type, and the system's own words for
    an errno, are certain to hold nothing from a request's body.
    """
    if isinstance(error, UvmdError):
        return str(error) or text_of(code)
    if isinstance(error, OSError) and error.errno is not None:
        return f"system call failed: {os.strerror(error.errno)} (errno {error.errno})"
    return f"internal error ({type(error).__name__})"


def record_of(error: BaseException, code: HResult, message: str) -> dict[str, Any]:
    """Return the error record for ``error``."""
    frames = _frames(_innermost(error))
    record: dict[str, Any] = {"Result": code.signed, "Message": message}
    if not frames:
        return record | {"ModuleName": _MODULE, "FileName": "", "Line": UNKNOWN_LINE}
    last = frames[-1]
    record["StackTrace"] = "\n".join(map(str, frames))
    return record | {
        "ModuleName": _MODULE,
        "FileName": last.file,
        "Line": last.line,
        "FunctionName": last.function,
    }


def stack_of(error: BaseException) -> str:
    """Return where ``error`` and what caused it were raised, one frame a line."""
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(parts) < _MAX_FRAMES:
        parts.append(type(cause).__name__)
        parts += [f"  {frame}" for frame in _frames(cause)]
        cause = cause.__cause__ or cause.__context__
    return "\n".join(parts)


def _innermost(error: BaseException) -> BaseException:
    """Return the last error along the explicit causes that knows where it was raised."""
    found, cause = error, error.__cause__
    while cause is not None:
        if cause.__traceback__ is not None:
            found = cause
        cause = cause.__cause__
    return found


class _Place(NamedTuple):
    module: str
    function: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.module}.{self.function} ({self.file}:{self.line})"


def _frames(error: BaseException) -> list[_Place]:
    """Return where ``error`` came from, outermost first; of a very deep stack the inner end."""
    places = []
    where = error.__traceback__
    while where is not None:
        code = where.tb_frame.f_code
        module = where.tb_frame.f_globals.get("__name__", "?")
        places.append(_Place(module, code.co_name, os.path.basename(code.co_filename), where.tb_lineno))
        where = where.tb_next
    return places[-_MAX_FRAMES:]
