"""Closing many descriptors at once."""

from __future__ import annotations

import os

import pytest

from uvmd.linux.files import close_all


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("kept", [(), (0,), (3,), (1, 2), (0, 2, 4), (0, 1, 2, 3, 4)])
def test_descriptors_are_closed_and_those_between_them_stay(kept: tuple[int, ...]) -> None:
    fds = [os.open("/", os.O_PATH) for _ in range(5)]
    ours = [fd for number, fd in enumerate(fds) if number not in kept]
    close_all(reversed(ours))
    assert [is_open(fd) for fd in fds] == [number in kept for number in range(5)]
    close_all([fds[number] for number in kept])
    assert not any(map(is_open, fds))
