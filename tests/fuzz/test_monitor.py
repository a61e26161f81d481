"""The fuzz targets of the monitor for a bounded time; FUZZ_SECONDS sets how long."""

from __future__ import annotations

import os

import pytest

from fuzz.fuzz_monitor import run_codec, run_live

SECONDS = float(os.environ.get("FUZZ_SECONDS", "4"))


@pytest.mark.fuzz
def test_no_made_up_packet_breaks_the_codec() -> None:
    count, took_s = run_codec(SECONDS / 2, 1)
    assert count > 0
    print(f"{count / took_s:.0f} inputs a second")


@pytest.mark.fuzz
@pytest.mark.system
def test_no_made_up_packet_ends_a_live_monitor() -> None:
    count, took_s = run_live(SECONDS / 2, 2)
    assert count > 0
    print(f"{count / took_s:.0f} packets a second")
