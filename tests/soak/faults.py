"""Unlucky days: a full disk, no memory, no descriptors, clocks that jump, runtimes that misbehave.

Each day has bystanders, containers that count lines and must not notice, and one connection,
which must stay open. While the day lasts, what cannot be done is refused with the reason; in
the evening everything works again, nothing is left behind, every exit code was told, and the
log says what happened and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bench.report import Figure
from soak import faults_calls as calls
from soak import faults_limits as limits

SECTIONS: dict[str, Callable[[int, bool], Iterator[Figure]]] = {
    "full-disk": lambda seed, quick: limits.full_disk(seed, 5 if quick else 100),
    "full-disk-strict": lambda seed, quick: limits.full_disk_strict(seed, 5 if quick else 50),
    "no-memory": lambda seed, quick: limits.no_memory(seed, 3 if quick else 30),
    "no-descriptors": lambda seed, quick: limits.no_descriptors(seed, 3 if quick else 50),
    "clocks": lambda seed, quick: calls.clocks(seed, 3 if quick else 20),
    "bad-runtime": lambda seed, quick: calls.runtimes(seed, 8 if quick else 30),
    "bad-runc": lambda seed, quick: calls.runtimes(seed, 8 if quick else 30, "runc"),
    "stopped": lambda seed, quick: calls.stopped(seed, 20 if quick else 200),
}
