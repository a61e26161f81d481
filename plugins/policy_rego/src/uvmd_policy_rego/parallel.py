"""Replaying in several processes, for ``uvmctl`` alone: a daemon does not spawn."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator

from uvmd_policy_rego.replay import replay_line


def replay_lines(lines: Iterable[str], jobs: int) -> Iterator[str]:
    """Run sessions in ``jobs`` processes; answers come in the order of the sessions."""
    # Spawned, not forked: what the engine has started does not survive a fork.
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(replay_line, (line for line in lines if line.strip()), chunksize=4)
