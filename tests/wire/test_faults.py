"""Unlucky days, each a short one; the long form is `make soak`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from bench.report import Figure
from soak import faults_calls as calls
from soak import faults_limits as limits

DAYS: dict[str, Callable[[int], Iterator[Figure]]] = {
    "full disk": lambda seed: limits.full_disk(seed, 2),
    "full disk, strict": lambda seed: limits.full_disk_strict(seed, 2),
    "no memory": lambda seed: limits.no_memory(seed, 1),
    "no descriptors": lambda seed: limits.no_descriptors(seed, 1),
    "clocks": lambda seed: calls.clocks(seed, 1),
    "bad crun": lambda seed: calls.runtimes(seed, 3),
    "bad runc": lambda seed: calls.runtimes(seed, 3, "runc"),
    "stopped": lambda seed: calls.stopped(seed, 4),
}


@pytest.mark.parametrize("what", DAYS)
def test_bystanders_do_not_notice_and_everything_works_in_the_evening(what: str) -> None:
    # Any failure names its seed, and UVMD_TEST_SEED makes it again.
    seed = int(os.environ.get("UVMD_TEST_SEED") or int.from_bytes(os.urandom(4)))
    assert all(figure.passed for figure in DAYS[what](seed))
