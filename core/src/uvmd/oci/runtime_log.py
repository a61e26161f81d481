"""What an OCI runtime says when it fails, and what that means (spec containers.md 9.4)."""

from __future__ import annotations

import json
import re
from typing import Final

from uvmd.errors import (
    ContainerExists,
    ContainerNotFound,
    ContainerStopped,
    InvalidContainerId,
    InvalidState,
    RuntimeFailed,
    UvmdError,
)

_ERROR_LEVELS: Final = frozenset({"error", "fatal", "panic"})
_CONSOLE: Final = re.compile(r'level=(?P<level>\w+).*?msg=(?P<msg>"(?:[^"\\]|\\.)*"|\S+)')
_MAX_TEXT: Final = 2048


def last_error(log: str, output: str = "") -> str:
    """Return a failed runtime's last words, ``""`` if it had none.

    The last entry of level error or worse in the log decides; without one, the last such line
    of the console output, then its last line. Lines that are neither JSON nor runc's console
    format are passed over: a cut-off line must not hide what follows (16.44).
    """
    found = ""
    for line in log.splitlines():
        level, message = _entry(line)
        if level in _ERROR_LEVELS and message:
            found = message
    if not found and output:
        found = last_error(output) or output.strip().rpartition("\n")[2]
    return found[:_MAX_TEXT]


def _entry(line: str) -> tuple[str, str]:
    if line.startswith("{"):
        try:
            entry = json.loads(line)
        except ValueError:
            return "", ""
        parts = [str(entry[key]) for key in ("msg", "error") if entry.get(key)]
        return str(entry.get("level", "")), ": ".join(parts)
    if match := _CONSOLE.search(line):
        message = match["msg"]
        if message.startswith('"'):
            message = re.sub(r"\\(.)", r"\1", message[1:-1])
        return match["level"], message
    return "", ""


# First match wins. runc's words, then those of crun for the same conditions.
_MEANINGS: Final[tuple[tuple[re.Pattern[str], type[UvmdError]], ...]] = tuple(
    (re.compile(pattern, re.DOTALL), error)
    for pattern, error in (
        (r"(?:^|: )container .*does not exist$|(?:^|: )container does not exist$", ContainerNotFound),
        (r"error opening file .*/status.*: No such file or directory", ContainerNotFound),
        (r"container with id exists|container with given ID already exists", ContainerExists),
        (r"container `.*` already exists", ContainerExists),
        (r"invalid id format|invalid container ID format", InvalidContainerId),
        (r"container.*that is not stopped|that is not stopped.*container", InvalidState),
        (r"container still running|is not in `created` or `stopped` state", InvalidState),
        (
            r"container not running|the container `.*` is not running|cannot exec in a stopped container",
            ContainerStopped,
        ),
    )
)


def runtime_error(doing: str, words: str) -> UvmdError:
    """Return the error that a runtime's last words stand for, RuntimeFailed for most."""
    kind = next((kind for pattern, kind in _MEANINGS if pattern.search(words)), RuntimeFailed)
    return kind(f"{doing}: {words}")
