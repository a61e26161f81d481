"""The fuzz targets of signed artefacts for a bounded time; FUZZ_SECONDS sets how long."""

from __future__ import annotations

import os

import pytest

from fuzz.fuzz_envelopes import run

SECONDS = float(os.environ.get("FUZZ_SECONDS", "4"))


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", [1, 2])
def test_no_made_up_artefact_breaks_its_reader(seed: int) -> None:
    count, taken, took_s = run(SECONDS / 2, seed)
    assert 0 < taken < count
    print(f"{count / took_s:.0f} inputs a second, {taken} opened")
