"""What plugins dial with."""

from __future__ import annotations

import time

import pytest

from uvmd.transport.dialer import Dialer


class FakeLink:
    def __init__(self) -> None:
        self.asked: list[tuple[int, float]] = []

    def dial(self, port: int, deadline_s: float) -> int:
        self.asked.append((port, deadline_s))
        return 42


def test_the_monitor_is_asked_for_the_time_that_is_left() -> None:
    link = FakeLink()
    assert Dialer(link)(564, time.monotonic() + 5) == 42
    ((port, left_s),) = link.asked
    assert port == 564
    assert 4 < left_s <= 5


def test_a_deadline_that_has_passed_asks_nobody() -> None:
    link = FakeLink()
    with pytest.raises(TimeoutError, match="port 564"):
        Dialer(link)(564, time.monotonic() - 1)
    assert link.asked == []
