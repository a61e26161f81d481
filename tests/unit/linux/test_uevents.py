"""Waiting for hardware, by a clock and messages that the test gives."""

from __future__ import annotations

import errno
import os
import time

import pytest

from uvmd.errors import DeadlineExceeded
from uvmd.linux import uevents


class Clock:
    """Time that passes while something is waited for."""

    def __init__(self) -> None:
        self.now = 100.0
        self.listening = 0
        self.waited: list[float] = []

    def __call__(self) -> float:
        return self.now

    def listen(self, about: str) -> Clock:
        self.listening += 1
        return self

    def wait(self, timeout_s: float) -> None:
        self.waited.append(timeout_s)
        self.now += 1.0

    def close(self) -> None:
        self.listening -= 1


def missing(code: int = errno.ENOENT, where: str = "/dev/sdq") -> OSError:
    return OSError(code, os.strerror(code), where)


def test_what_is_there_is_returned_without_listening() -> None:
    clock = Clock()
    assert uevents.wait_for(lambda: "sda", 0.0, "a disk", listen=clock.listen, clock=clock) == "sda"
    assert (clock.listening, clock.waited) == (0, [])


def test_every_message_is_a_reason_to_look_again() -> None:
    clock = Clock()
    answers: list[str | None] = [None, None, None, "sda"]
    found = uevents.wait_for(lambda: answers.pop(0), 110.0, "a disk", listen=clock.listen, clock=clock)
    assert (found, clock.listening, clock.waited) == ("sda", 0, [10.0, 9.0])


def test_what_came_between_the_first_look_and_listening_is_not_missed() -> None:
    clock = Clock()
    answers = [None, "sda"]
    assert uevents.wait_for(lambda: answers.pop(0), 0.0, "a disk", listen=clock.listen, clock=clock)
    assert clock.waited == []


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ENOTDIR])
def test_the_error_says_what_how_long_why_not_and_what_is_there_instead(code: int) -> None:
    clock = Clock()

    def look() -> None:
        raise missing(code)

    with pytest.raises(DeadlineExceeded) as caught:
        uevents.wait_for(
            look, 102.5, "SCSI disk 2:0:0:7", seen=lambda: "LUN 1, 2", listen=clock.listen, clock=clock
        )
    why = os.strerror(code).lower()
    assert str(caught.value) == (
        f"SCSI disk 2:0:0:7 did not come within 3.0 s ({why}: /dev/sdq); there is LUN 1, 2"
    )
    assert clock.listening == 0


def test_what_is_there_instead_may_be_unreadable_too() -> None:
    def seen() -> str:
        raise missing()

    with pytest.raises(DeadlineExceeded, match=r"a disk did not come within 0\.0 s; what is there instead"):
        uevents.wait_for(lambda: None, 0.0, "a disk", seen=seen, listen=Clock().listen)


def test_any_other_error_ends_the_wait() -> None:
    clock = Clock()

    def look() -> None:
        raise missing(errno.EACCES)

    with pytest.raises(PermissionError):
        uevents.wait_for(look, 110.0, "a disk", listen=clock.listen, clock=clock)
    answers = [None, None]
    with pytest.raises(IndexError):
        uevents.wait_for(lambda: answers.pop(0), 110.0, "a disk", listen=clock.listen, clock=clock)
    assert clock.listening == 0


def test_the_kernel_s_socket_waits_no_longer_than_asked() -> None:
    source = uevents.Uevents()
    began = time.monotonic()
    source.wait(0.001)
    source.close()
    source.close()
    source.wait(0.001)  # as where there is no such socket
    assert time.monotonic() - began < 1


@pytest.mark.root
def test_a_message_about_another_device_is_no_reason_to_look() -> None:
    source = uevents.Uevents("/block/loop7")
    try:
        with open("/sys/block/loop6/uevent", "w") as file:
            file.write("change")
        began = time.monotonic()
        source.wait(0.05)
        assert time.monotonic() - began >= 0.05
        with open("/sys/block/loop7/uevent", "w") as file:
            file.write("change")
        source.wait(5)
        assert time.monotonic() - began < 0.14
    finally:
        source.close()


@pytest.mark.root
def test_a_message_of_the_kernel_wakes_before_the_fallback() -> None:
    source = uevents.Uevents()
    try:
        with open("/sys/block/loop7/uevent", "w") as file:
            file.write("change")
        began = time.monotonic()
        source.wait(5)
        assert time.monotonic() - began < 0.09
    finally:
        source.close()
