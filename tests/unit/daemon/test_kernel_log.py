"""What of the kernel's log is forwarded."""

from __future__ import annotations

import logging
from typing import cast

import pytest

from uvmd.daemon import kernel_log
from uvmd.linux.kmsg import KernelLog, Overwritten


class Source:
    """Gives what it is told to, then the end of the log."""

    def __init__(self, *given: bytes | Exception) -> None:
        self.given = list(given)
        self.closed = False

    def next_record(self) -> bytes:
        if not self.given:
            return b""
        next_ = self.given.pop(0)
        if isinstance(next_, Exception):
            raise next_
        return next_

    def close(self) -> None:
        self.closed = True


def forwarded(
    caplog: pytest.LogCaptureFixture, level: int, *given: bytes | Exception
) -> list[tuple[str, str]]:
    source = Source(*given)
    with caplog.at_level(logging.INFO):
        kernel_log.forward(cast(KernelLog, source), level)
    assert source.closed
    return [(record.levelname, getattr(record, "text", record.getMessage())) for record in caplog.records]


def test_records_that_are_urgent_enough_are_forwarded_with_their_facts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = forwarded(caplog, 4, b"4,7,99,-;four\n", b"5,8,100,-;five\n", b"30,9,101,-;six of a daemon\n")
    assert told == [("INFO", "four")]
    record = caplog.records[0]
    facts = [getattr(record, name) for name in ("priority", "facility", "seq", "boot_us", "flags")]
    assert facts == ["warning", 0, 7, 99, "-"]


def test_what_is_missing_or_makes_no_sense_is_said_and_the_rest_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = forwarded(caplog, 7, Overwritten(), b"nonsense", b"6,1,1,-;on\n", OSError(5, "Input/output error"))
    assert [level for level, _ in told] == ["WARNING", "ERROR", "INFO", "ERROR"]
    assert told[2] == ("INFO", "on")
