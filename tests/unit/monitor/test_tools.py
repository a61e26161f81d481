"""What relays share."""

from __future__ import annotations

import fcntl
import os

import pytest

from support.monitor_parts import Parts, nonblocking_pipe
from uvmd.monitor import tools


@pytest.mark.parametrize(("soft_limit", "pipes"), [(16_384, 64), (64, 0), (0, 256)])
def test_a_quarter_of_the_users_pipe_pages_may_be_spent(soft_limit: int, pipes: int) -> None:
    assert tools.large_pipes_allowed(soft_limit) == pipes


def test_pipes_are_enlarged_while_the_budget_lasts(parts: Parts) -> None:
    parts.tools._large_left = 1
    first, second = nonblocking_pipe(), nonblocking_pipe()
    assert parts.tools.enlarge(first[0])
    assert fcntl.fcntl(first[0], fcntl.F_GETPIPE_SZ) == tools.LARGE_PIPE_BYTES
    assert not parts.tools.enlarge(second[0])
    parts.tools.give_back()
    assert parts.tools.enlarge(second[0])
    for fd in (*first, *second):
        os.close(fd)


def test_what_cannot_be_enlarged_stays_as_it_is(parts: Parts) -> None:
    with open("/dev/null") as null:
        assert not parts.tools.enlarge(null.fileno())
