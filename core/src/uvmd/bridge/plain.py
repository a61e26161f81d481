"""Bodies read by hand: what has to be known without pydantic.

Four things are read this way: the common fields of every request before it is decoded
(leniently, spec bridge.md 3.1), Start, whose whole body they are, Negotiate, which is
answered before the models are loaded, and Wait, of which a new daemon gets every pending
one at once. The rules are the codec's; a property test holds them and the models to the
same answers.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from uvmd.bridge.identifiers import ZERO_GUID
from uvmd.codec import Names, fold
from uvmd.errors import InvalidMessage

_COMMON = ("ContainerId", "ActivityId", "otsc")
# Keys that the models know are listed too: a body that has no others needs no folding.
_LENIENT = Names(
    (
        *_COMMON,
        "ContainerConfig",
        "Height",
        "MaximumVersion",
        "MinimumVersion",
        "Options",
        "ProcessId",
        "Query",
        "Request",
        "Settings",
        "SupportedVersions",
        "TimeoutInMs",
        "UvmdEvents",
        "Width",
        "ocsc",
    )
)
_BASE = Names((*_COMMON, "ocsc"))
_NEGOTIATE = Names((*_COMMON, "ocsc", "MinimumVersion", "MaximumVersion", "UvmdEvents"))
_WAIT = Names((*_COMMON, "ocsc", "ProcessId", "TimeoutInMs"))
_U32_MAX = 0xFFFF_FFFF
_GUID = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Common(NamedTuple):
    """The fields of every request, as far as they could be made out."""

    container_id: str = ""
    activity_id: str = ""
    trace: dict[str, str] | None = None


NOTHING = Common()


def read_common(value: Any) -> Common:
    """Return the common fields of a parsed body; what has the wrong type is left out."""
    if type(value) is not dict:
        return NOTHING
    found = fold(value, _LENIENT, what="body")
    container_id, activity_id, trace = (found.get(key) for key in _COMMON)
    if activity_id == ZERO_GUID:
        activity_id = ZERO_GUID  # thousands of waits share one string
    return Common(
        container_id if type(container_id) is str else "",
        activity_id if type(activity_id) is str else "",
        {key: item for key, item in trace.items() if type(item) is str} if type(trace) is dict else None,
    )


def check_base(value: Any, *, strict: bool) -> None:
    """Check a body that has nothing but the common fields.

    Raises:
        InvalidMessage: it cannot be decoded.
    """
    _checked(value, _BASE, strict)


def read_negotiate(value: Any, *, strict: bool) -> tuple[int, int, bool]:
    """Return the minimum and maximum version that a Negotiate offers, and whether it wants events.

    Raises:
        InvalidMessage: it cannot be decoded.
    """
    found = _checked(value, _NEGOTIATE, strict)
    events = found.get("UvmdEvents")
    if events is not None and type(events) is not bool:
        raise InvalidMessage("body.UvmdEvents: should be a boolean")
    return _u32(found, "MinimumVersion"), _u32(found, "MaximumVersion"), events is True


def read_wait(value: Any, *, strict: bool) -> tuple[str, int, int]:
    """Return container id, process id and time limit (in ms) of a Wait.

    Raises:
        InvalidMessage: it cannot be decoded.
    """
    found = _checked(value, _WAIT, strict)
    return found.get("ContainerId") or "", _u32(found, "ProcessId"), _u32(found, "TimeoutInMs")


def is_guid(text: str) -> bool:
    """Whether a host would read ``text`` as a GUID; it drops the bridge over any other."""
    return text == ZERO_GUID or _GUID.fullmatch(text) is not None


def _checked(value: Any, names: Names, strict: bool) -> dict[str, Any]:
    if value is None:
        return {}
    if type(value) is not dict:
        raise InvalidMessage("body: should be an object")
    found = fold(value, names, what="body", strict=strict)
    for key in ("ContainerId", "ActivityId"):
        if type(found.get(key, "")) is not str and found[key] is not None:
            raise InvalidMessage(f"body.{key}: should be a string")
    trace = found.get("otsc")
    if trace is not None:
        if type(trace) is not dict:
            raise InvalidMessage("body.otsc: should be an object")
        if not all(type(item) is str or item is None for item in trace.values()):
            raise InvalidMessage("body.otsc[*]: should be a string")
    return found


def _u32(found: dict[str, Any], key: str) -> int:
    number = found.get(key)
    if number is None:
        return 0
    if type(number) is not int:
        raise InvalidMessage(f"body.{key}: should be an integer")
    if not 0 <= number <= _U32_MAX:
        raise InvalidMessage(f"body.{key}: should be between 0 and {_U32_MAX}")
    return number
