"""``uvmctl top``: what the containers use, live."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from uvmd.client import Client
from uvmd.client.protocol import NULL_ID

_KIND: Final = "uvmd.usage"
_CLEAR: Final = "\x1b[H\x1b[2J"
_COLUMNS: Final = (
    "CONTAINER",
    "POD",
    "STATE",
    "CPU %",
    "MEMORY",
    "LIMIT",
    "PIDS",
    "READ/s",
    "WRITTEN/s",
    "OOM",
)
#: What rows are sorted by, the largest first.
_ORDERS: Final = ("cpu", "memory", "io", "id")

Row = Mapping[str, Any]


@click.command("top")
@click.option(
    "--sort", type=click.Choice([*_ORDERS]), default="cpu", show_default=True, help="What comes first."
)
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    help="Seconds between looks.",
)
@click.option("-n", "--count", type=click.IntRange(min=1), metavar="N", help="Stop after N looks.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a look, rates a second.")
@click.pass_obj
def top(client: Client, sort: str, interval: float, count: int | None, as_json: bool) -> None:
    """Show what each container uses, until Ctrl-C. CPU 100 is one whole CPU.

    \b
      uvmctl top
      uvmctl top --sort memory --interval 5
      uvmctl top -n 1 --json | jq '.containers[0]'
    """
    before, taken = _look(client), time.monotonic()
    looks = 0
    while count is None or looks < count:
        time.sleep(interval)
        now, at = _look(client), time.monotonic()
        rows = sorted(rates(before, now, at - taken), key=_order(sort))
        if as_json:
            click.echo(json.dumps({"time": time.time(), "containers": rows}))
        else:
            click.echo((_CLEAR if sys.stdout.isatty() else "") + render(rows))
        before, taken, looks = now, at, looks + 1


def _look(client: Client) -> dict[str, Row]:
    rows: Sequence[Row] = client.properties(NULL_ID, [_KIND]).get(_KIND) or []
    return {str(row["id"]): row for row in rows}


def rates(before: Mapping[str, Row], now: Mapping[str, Row], seconds: float) -> list[dict[str, Any]]:
    """Return a row a container: what it uses, and its rates between two looks.

    A container that came in between has no rates yet.
    """
    rows = []
    for name, row in now.items():
        earlier = before.get(name, row)
        rows.append(
            {
                **{key: row[key] for key in ("id", "pod", "state", "memory_bytes", "memory_limit_bytes")},
                "processes": row["processes"],
                "oom_kills": row["oom_kills"],
                "cpu": max(0, row["cpu_ns"] - earlier["cpu_ns"]) / 1e9 / seconds,
                "read_bytes_s": max(0, row["read_bytes"] - earlier["read_bytes"]) / seconds,
                "written_bytes_s": max(0, row["written_bytes"] - earlier["written_bytes"]) / seconds,
            }
        )
    return rows


def _order(sort: str) -> Any:
    if sort == "cpu":
        return lambda row: (-row["cpu"], row["id"])
    if sort == "memory":
        return lambda row: (-row["memory_bytes"], row["id"])
    if sort == "io":
        return lambda row: (-row["read_bytes_s"] - row["written_bytes_s"], row["id"])
    return lambda row: row["id"]


def render(rows: Sequence[Row]) -> str:
    """Return the table, with a line of sums above it."""
    cells = [
        (
            str(row["id"])[:24],
            "" if row["pod"] == row["id"] else str(row["pod"])[:16],
            row["state"],
            f"{row['cpu'] * 100:.1f}",
            size(row["memory_bytes"]),
            size(row["memory_limit_bytes"]) if row["memory_limit_bytes"] else "-",
            str(row["processes"]),
            size(row["read_bytes_s"]),
            size(row["written_bytes_s"]),
            str(row["oom_kills"] or "-"),
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in [_COLUMNS, *cells]) for column in range(len(_COLUMNS))]
    lines = []
    for line in [_COLUMNS, *cells]:
        words = (
            word.ljust(width) if column < 3 else word.rjust(width)
            for column, (word, width) in enumerate(zip(line, widths, strict=True))
        )
        lines.append("  ".join(words).rstrip())
    cpu, memory = sum(row["cpu"] for row in rows), sum(row["memory_bytes"] for row in rows)
    head = f"{len(rows)} containers   CPU {cpu * 100:.1f} %   memory {size(memory)}"
    return "\n".join([head, "", *lines])


def size(count: float) -> str:
    """Return bytes with a unit: ``512``, ``1.5K``, ``20M``."""
    for unit in ("", "K", "M", "G"):
        if count < 1024:
            return f"{count:.1f}{unit}" if unit and count < 10 else f"{count:.0f}{unit}"
        count /= 1024
    return f"{count:.1f}T"
