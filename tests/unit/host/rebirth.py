"""A new daemon in place of one that was killed."""

from __future__ import annotations

from typing import Any

from unit.host.fakes import Bench
from uvmd.host import recovery
from uvmd.host.context import Context
from uvmd.host.requests import ContainerExit


class State_:
    """What HELLO answers."""

    def __init__(self, bench: Bench, requests: frozenset[int] = frozenset()) -> None:
        self.slots = list(bench.monitor.slots.values())
        self.requests = requests


def reborn(bench: Bench, *requests: int, finish: bool = True) -> list[ContainerExit]:
    """Let a new daemon take over, to which the monitor hands ``requests``; return what it tells."""
    bench.ctx = bench.fresh_context()
    told: list[ContainerExit] = []

    def listen(event: ContainerExit) -> None:
        told.append(event)
        if event.slot in bench.monitor.slots:
            bench.monitor.slots[event.slot].told = True

    bench.ctx.exits.listen(listen)
    for unfinished in recovery.recover(bench.ctx, State_(bench, frozenset(requests))):
        if finish:
            unfinished()
    return told


def outcome(ctx: Context, container_id: str, pid: int) -> list[Any]:
    found: list[Any] = []
    ctx.exits.wait(container_id, pid, 0xFFFFFFFF, found.append)
    return found
