"""``uvmctl stats``."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from uvmd.cli.ctl.settings import Settings, common, pass_settings
from uvmd.cli.ctl.tables import duration, limit, size, table
from uvmd.client import Client, RemoteError
from uvmd.client.status import vm_status

_HEADERS = ("ID", "CPU %", "CPU TIME", "MEMORY", "LIMIT", "PIDS", "OOM KILLS")
_CLEAR = "\x1b[H\x1b[2J"


@click.command("stats")
@click.option("-w", "--watch", is_flag=True, help="Repeat until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=1.0,
    metavar="SECONDS",
    help="Pause between two looks [default: 1].",
)
@common()
@click.argument("container_ids", metavar="[ID...]", nargs=-1)
@pass_settings
def stats_verb(settings: Settings, container_ids: tuple[str, ...], watch: bool, interval: float) -> None:
    """Show CPU time, memory and processes of containers, by default of all.

    CPU % needs two looks, so it appears with --watch only; 100 is one whole CPU. With
    --json the daemon's own figures come out, one object a look.

    \b
      uvmctl stats
      uvmctl stats --watch web db
      uvmctl stats --json web | jq '.web.memory.usage.usage'
    """
    before: dict[str, float] = {}
    with settings.connect() as client:
        while True:
            taken = time.monotonic()
            metrics = _metrics(client, container_ids)
            cpu = {container_id: _cpu_s(metric) for container_id, metric in metrics.items()}
            if watch and not settings.json and sys.stdout.isatty():
                click.echo(_CLEAR, nl=False)
            settings.show(metrics, render(metrics, _shares(before, cpu, interval)))
            if not watch:
                return
            before = cpu
            # Time itself is what is waited for here; looks stay on their grid.
            time.sleep(max(0.0, interval - (time.monotonic() - taken)))


def render(metrics: Mapping[str, Mapping[str, Any]], shares: Mapping[str, float]) -> str:
    """Return the table of one look. ``shares`` is the part of a CPU used since the last."""
    if not metrics:
        return "no containers"
    rows = []
    for container_id, metric in metrics.items():
        memory = _at(metric, "memory", "usage")
        rows.append(
            (
                container_id,
                f"{shares[container_id] * 100:.1f}" if container_id in shares else "",
                duration(_cpu_s(metric)),
                size(memory.get("usage", 0)),
                limit(memory.get("limit", 0)),
                _at(metric, "pids").get("current", 0),
                _at(metric, "memory_oom_control").get("oom_kill", 0),
            )
        )
    return table(_HEADERS, rows, right=_HEADERS[1:])


def _metrics(client: Client, container_ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    chosen = container_ids or [container.id for container in vm_status(client).containers]
    found: dict[str, Mapping[str, Any]] = {}
    for container_id in chosen:
        try:
            found[container_id] = client.properties(container_id, ["Statistics"]).get("LCOWMetrics") or {}
        except RemoteError:
            # Between the list and the look it may have been deleted, or not be created yet.
            if container_ids:
                raise
    return found


def _shares(before: Mapping[str, float], now: Mapping[str, float], interval: float) -> dict[str, float]:
    return {key: max(0.0, now[key] - before[key]) / interval for key in now if key in before}


def _cpu_s(metric: Mapping[str, Any]) -> float:
    return float(_at(metric, "cpu", "usage").get("total", 0)) / 1e9


def _at(value: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    for key in keys:
        below = value.get(key)
        value = below if isinstance(below, dict) else {}
    return value
