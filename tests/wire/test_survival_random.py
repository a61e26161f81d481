"""The daemon is killed at random, and once in each phase; the long form is `make soak`."""

from __future__ import annotations

import os

from soak.restarts import ordeal


def test_kills_in_every_phase_lose_nothing() -> None:
    # Any failure names its seed, and UVMD_TEST_SEED makes it again.
    seed = int(os.environ.get("UVMD_TEST_SEED") or int.from_bytes(os.urandom(4)))
    with ordeal(seed, containers=4) as made:
        made.run(kills=10, each=1)
        made.end()
        assert set(made.hit) == set(made.phases)
        print(f"seed {seed}", *made.figures(), sep="\n")
