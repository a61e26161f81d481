"""What an error response says beside its code (spec bridge.md 5.2), and never more.

A stack here is names of functions and lines; no value of a variable, no source line and
no text of an exception that we did not write ourselves is in it.
"""

from __future__ import annotations

import os
from typing import Any

from uvmd.bridge.hresult import MAX_CHAIN, HResult, text_of
from uvmd.errors import UvmdError
from uvmd.observe.stacks import places_of

#: ``Line`` of an error whose place is not known.
UNKNOWN_LINE = 0xFFFF_FFFF
_MODULE = "gcs"


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
    places = places_of(_innermost(error))
    record: dict[str, Any] = {"Result": code.signed, "Message": message}
    if not places:
        return record | {"ModuleName": _MODULE, "FileName": "", "Line": UNKNOWN_LINE}
    last = places[-1]
    record["StackTrace"] = "\n".join(map(str, places))
    return record | {
        "ModuleName": _MODULE,
        "FileName": last.file,
        "Line": last.line,
        "FunctionName": last.function,
    }


def _innermost(error: BaseException) -> BaseException:
    """Return the last error along the explicit causes that knows where it was raised."""
    found, cause = error, error.__cause__
    for _ in range(MAX_CHAIN):
        if cause is None:
            break
        if cause.__traceback__ is not None:
            found = cause
        cause = cause.__cause__
    return found
