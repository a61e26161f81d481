"""Fifty thousand malformed inputs at the real daemon; the long form is `make soak`."""

from __future__ import annotations

import os

import pytest

from soak.aftermath import SOON
from soak.malformed import STANCES, storm


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("open", 30_000), ("strict", 20_000)])
def test_no_malformed_input_harms_the_daemon(name: str, count: int) -> None:
    # Any failure names its seed, and UVMD_TEST_SEED makes it again.
    seed = int(os.environ.get("UVMD_TEST_SEED") or int.from_bytes(os.urandom(4)))
    (stance,) = [stance for stance in STANCES if stance.name == name]
    figures = list(storm(stance, count, seed, most=SOON))
    print(f"seed {seed}", *figures, sep="\n")
    assert not [figure for figure in figures if not figure.passed], f"seed {seed}"
