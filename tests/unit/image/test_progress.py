"""Meters that do not call for every file."""

from __future__ import annotations

from uvmd.image.progress import Meter, silent


def test_small_steps_are_told_in_strides_and_the_end_always() -> None:
    told: list[tuple[str, int, int]] = []
    meter = Meter("hash", 20 << 20, lambda *one: told.append(one))
    for _ in range(20 << 10):
        meter.advance(1024)
    meter.end()
    assert told == [("hash", 8 << 20, 20 << 20), ("hash", 16 << 20, 20 << 20), ("hash", 20 << 20, 20 << 20)]


def test_more_than_was_promised_never_shows_above_the_whole() -> None:
    told: list[tuple[str, int, int]] = []
    meter = Meter("hash", 5, lambda *one: told.append(one))
    meter.advance(9 << 20)
    assert told == [("hash", 5, 5)]


def test_silence_takes_anything() -> None:
    silent("hash", 0, 0)
