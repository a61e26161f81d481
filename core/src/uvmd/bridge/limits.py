"""No answer is larger than a host accepts (spec bridge.md 12.4).

A frame above 65,536 bytes makes the host tear the bridge down, which it takes for the
death of every container. So answers are cut, the least needed first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from uvmd import codec
from uvmd.bridge.frames import HEADER_BYTES, MAX_OUTBOUND_BYTES

MAX_BODY_BYTES = MAX_OUTBOUND_BYTES - HEADER_BYTES
#: Ends a text that was cut.
MARK = " [cut]"


class TooLarge(Exception):
    """Nothing is left to cut; ``size`` is what it came to, in bytes."""

    def __init__(self, size: int) -> None:
        self.size = size
        super().__init__(f"an answer of {size} bytes, a host accepts {MAX_BODY_BYTES}")


def fit(answer: dict[str, Any]) -> bytes:
    """Return ``answer`` as a body that a host accepts, cut if it must be.

    Raises:
        TooLarge: what must not be cut is too large by itself.
    """
    body = codec.dumps(answer)
    if len(body) <= MAX_BODY_BYTES:
        return body
    for cut in (_cut_stack_trace, _cut_message, _cut_guest_stacks, _cut_process_list):
        if cut(answer):
            body = codec.dumps(answer)
            if len(body) <= MAX_BODY_BYTES:
                return body
    raise TooLarge(len(body))


def _cut_stack_trace(answer: dict[str, Any]) -> bool:
    records = answer.get("ErrorRecords")
    if not records or "StackTrace" not in records[0]:
        return False
    _cut_text(answer, records[0]["StackTrace"], lambda text: records[0].update(StackTrace=text))
    return True


def _cut_message(answer: dict[str, Any]) -> bool:
    records = answer.get("ErrorRecords")
    if not records:
        return False

    def put(text: str) -> None:
        answer["ErrorMessage"] = records[0]["Message"] = text

    _cut_text(answer, answer["ErrorMessage"], put)
    return True


def _cut_guest_stacks(answer: dict[str, Any]) -> bool:
    if "GuestStacks" not in answer:
        return False
    _cut_text(answer, answer["GuestStacks"], lambda text: answer.update(GuestStacks=text))
    return True


def _cut_process_list(answer: dict[str, Any]) -> bool:
    if "Properties" not in answer:
        return False
    properties = codec.parse(answer["Properties"], what="Properties")
    processes = properties.get("ProcessList")
    if not processes:
        return False

    def put(count: int) -> None:
        answer["Properties"] = codec.dumps(properties | {"ProcessList": processes[:count]}).decode()

    _largest_that_fits(answer, len(processes), put)
    return True


def _cut_text(answer: dict[str, Any], text: str, put: Callable[[str], None]) -> None:
    _largest_that_fits(answer, len(text), lambda count: put(text[:count] + MARK))


def _largest_that_fits(answer: dict[str, Any], count: int, put: Callable[[int], None]) -> None:
    """Leave ``answer`` with the most that fits; with nothing of it if even that is too much."""
    low, high = 0, count
    while low < high:
        middle = (low + high + 1) // 2
        put(middle)
        if len(codec.dumps(answer)) <= MAX_BODY_BYTES:
            low = middle
        else:
            high = middle - 1
    put(low)
