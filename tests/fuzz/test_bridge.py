"""The fuzz targets of the bridge for a bounded time; FUZZ_SECONDS sets how long."""

from __future__ import annotations

import os

import pytest

from fuzz.fuzz_bridge import run

SECONDS = float(os.environ.get("FUZZ_SECONDS", "4"))


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", [1, 2])
def test_no_made_up_frame_breaks_the_bridge(seed: int) -> None:
    count, took_s = run(SECONDS / 2, seed)
    assert count > 0
    print(f"{count / took_s:.0f} inputs a second")
