"""``uvmctl ping``."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from uvmd.cli.ctl.settings import Settings, common, pass_settings
from uvmd.cli.ctl.tables import duration
from uvmd.client import Client

#: No container has it; StartContainer of any id is answered with success and does nothing.
_NOBODY = "uvmctl-ping"


@click.command("ping")
@click.option(
    "-c",
    "--count",
    type=click.IntRange(1, 1_000_000),
    default=10,
    metavar="N",
    help="How many [default: 10].",
)
@click.option(
    "-i",
    "--interval",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Pause between two [default: none].",
)
@common()
@pass_settings
def ping_verb(settings: Settings, count: int, interval: float) -> None:
    """Measure the time of a request that does nothing.

    It goes the whole way: socket, monitor, daemon and back.

    \b
      uvmctl ping
      uvmctl ping -c 10000
    """
    with settings.connect() as client:
        times = sorted(_measure(client, count, interval))
    figures = {
        "count": count,
        "min_us": round(times[0] * 1e6, 1),
        "p50_us": round(quantile(times, 0.5) * 1e6, 1),
        "p90_us": round(quantile(times, 0.9) * 1e6, 1),
        "p99_us": round(quantile(times, 0.99) * 1e6, 1),
        "max_us": round(times[-1] * 1e6, 1),
    }
    line = ", ".join(
        f"{name[:-3]} {duration(value / 1e6)}" for name, value in figures.items() if name != "count"
    )
    settings.show(figures, f"{count} round trips: {line}")


def quantile(ordered: Sequence[float], part: float) -> float:
    """Return the value below which *part* of the ordered values lie."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def _measure(client: Client, count: int, interval: float) -> list[float]:
    times = []
    for number in range(count):
        if number and interval:
            time.sleep(interval)
        began = time.perf_counter()
        client.start(_NOBODY)
        times.append(time.perf_counter() - began)
    return times
