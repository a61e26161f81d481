"""``uvmctl top``: what the containers use, live."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import click

from uvmd.client import Client
from uvmd.client.protocol import NULL_ID

_KIND: Final = "uvmd.usage"
#: Home, and what was there is written over: no flicker.
_HOME: Final = "\x1b[H"
_CLEAR_LINE: Final = "\x1b[K"
_CLEAR_BELOW: Final = "\x1b[J"
#: Header, and whether it is a text, which stands at the left.
_COLUMNS: Final = (
    ("CONTAINER", True),
    ("POD", True),
    ("STATE", True),
    ("CPU %", False),
    ("MEMORY", False),
    ("LIMIT", False),
    ("PIDS", False),
    ("READ/s", False),
    ("WRITTEN/s", False),
    ("OOM", False),
)
#: What goes first where a terminal is too narrow.
_LESS_NEEDED: Final = ("POD", "PIDS", "LIMIT", "OOM", "READ/s", "WRITTEN/s", "STATE")
_AS_IT_IS: Final = ("id", "pod", "state", "memory_bytes", "memory_limit_bytes", "processes", "oom_kills")
#: A rate a second: of which counter, in which unit.
_COUNTERS: Final = {
    "cpu": ("cpu_ns", 1e9),
    "read_bytes_s": ("read_bytes", 1),
    "written_bytes_s": ("written_bytes", 1),
}
_MOST_NAME: Final = 24
_LEAST_NAME: Final = 12

Row = Mapping[str, Any]
#: What rows are sorted by, the largest first (ids: the first in the alphabet).
_ORDERS: Final[Mapping[str, Callable[[Row], Any]]] = {
    "cpu": lambda row: (-(row["cpu"] or 0), row["id"]),
    "memory": lambda row: (-row["memory_bytes"], row["id"]),
    "io": lambda row: (-(row["read_bytes_s"] or 0) - (row["written_bytes_s"] or 0), row["id"]),
    "pids": lambda row: (-row["processes"], row["id"]),
    "id": lambda row: row["id"],
}


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
@click.option("--once", is_flag=True, help="One look, over one second.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a look, rates a second.")
@click.pass_obj
def top(client: Client, sort: str, interval: float, count: int | None, once: bool, as_json: bool) -> None:
    """Show what each container uses, until Ctrl-C. CPU 100 is one whole CPU.

    In a terminal the table has as many columns and rows as there is room for.

    \b
      uvmctl top
      uvmctl top --sort memory --interval 5
      uvmctl top --once --json | jq '.containers[0]'
    """
    if once:
        count, interval = 1, min(interval, 1.0)
    live = sys.stdout.isatty() and not as_json and not once
    before, taken = _look(client), time.monotonic()
    if live:
        # Rates take a second look; the rest is known already.
        click.echo(_HOME + _CLEAR_BELOW + _screen(_sorted(rates({}, before, interval), sort)), nl=False)
    looks = 0
    while count is None or looks < count:
        time.sleep(interval)
        now, at = _look(client), time.monotonic()
        rows = _sorted(rates(before, now, at - taken), sort)
        if as_json:
            click.echo(json.dumps({"time": time.time(), "containers": rows}))
        elif live:
            click.echo(_HOME + _screen(rows), nl=False)
        else:
            click.echo(render(rows, 0 if not sys.stdout.isatty() else _size()[0]))
        before, taken, looks = now, at, looks + 1


def _look(client: Client) -> dict[str, Row]:
    rows: Sequence[Row] = client.properties(NULL_ID, [_KIND]).get(_KIND) or []
    return {str(row["id"]): row for row in rows}


def rates(before: Mapping[str, Row], now: Mapping[str, Row], seconds: float) -> list[dict[str, Any]]:
    """Return a row a container: what it uses, and its rates between two looks.

    A container that came in between has no rates yet (None); one that went has no row. Where
    a counter went back it is another container under the same name, or its cgroup is gone.
    """
    rows = []
    for name, row in now.items():
        kept = {key: row[key] for key in _AS_IT_IS}
        earlier = before.get(name)
        if earlier is None:
            rows.append({**kept, **dict.fromkeys(_COUNTERS)})
        else:
            counted = {
                rate: max(0, row[key] - earlier[key]) / unit / seconds
                for rate, (key, unit) in _COUNTERS.items()
            }
            rows.append({**kept, **counted})
    return rows


def _sorted(rows: Sequence[dict[str, Any]], sort: str) -> list[dict[str, Any]]:
    return sorted(rows, key=_ORDERS[sort])


def _size() -> tuple[int, int]:
    return shutil.get_terminal_size((80, 24))


def _screen(rows: Sequence[Row]) -> str:
    """Return the table as what a terminal is sent: written over what was there, as large as it is."""
    columns, lines = _size()
    table = render(rows, columns).split("\n")
    if len(table) >= lines:
        table = [*table[: lines - 2], f"{len(table) - lines + 2} more"]
    return "".join(f"{line}{_CLEAR_LINE}\n" for line in table) + _CLEAR_BELOW


def render(rows: Sequence[Row], columns: int = 0) -> str:
    """Return the table under a line of sums; in so many columns, if any: the less needed ones go."""
    cpu, memory = sum(row["cpu"] or 0 for row in rows), sum(row["memory_bytes"] for row in rows)
    things = "container" if len(rows) == 1 else "containers"
    known = "-" if rows and all(row["cpu"] is None for row in rows) else f"{cpu * 100:.1f} %"
    head = f"{len(rows)} {things}   CPU {known}   memory {size(memory)}"
    if not rows:
        return head
    cells = [dict(zip((name for name, _ in _COLUMNS), _cells(row), strict=True)) for row in rows]
    widths = {name: max(len(name), *(len(line[name]) for line in cells)) for name, _ in _COLUMNS}
    if not any(line["POD"] for line in cells):
        del widths["POD"]
    less_needed = (name for name in _LESS_NEEDED if name in widths)
    while columns and sum(widths.values()) + 2 * (len(widths) - 1) > columns:
        over = sum(widths.values()) + 2 * (len(widths) - 1) - columns
        # Names give way before a column does, as far as they can still be told apart.
        if widths["CONTAINER"] - over >= _LEAST_NAME:
            widths["CONTAINER"] -= over
        elif (name := next(less_needed, None)) is not None:
            del widths[name]
        else:
            break
    lines = [_line({name: name for name in widths}, widths), *(_line(line, widths) for line in cells)]
    return "\n".join([head, "", *lines])


def _cells(row: Row) -> tuple[str, ...]:
    return (
        str(row["id"])[:_MOST_NAME],
        "" if row["pod"] == row["id"] else str(row["pod"])[:16],
        row["state"],
        "-" if row["cpu"] is None else f"{row['cpu'] * 100:.1f}",
        size(row["memory_bytes"]),
        size(row["memory_limit_bytes"]) if row["memory_limit_bytes"] else "-",
        str(row["processes"]),
        "-" if row["read_bytes_s"] is None else size(row["read_bytes_s"]),
        "-" if row["written_bytes_s"] is None else size(row["written_bytes_s"]),
        str(row["oom_kills"] or "-"),
    )


def _line(cells: Mapping[str, str], widths: Mapping[str, int]) -> str:
    words = [
        cells[name][: widths[name]].ljust(widths[name]) if text else cells[name].rjust(widths[name])
        for name, text in _COLUMNS
        if name in widths
    ]
    return "  ".join(words).rstrip()


def size(count: float) -> str:
    """Return bytes with a unit: ``512``, ``1.5K``, ``20M``."""
    for unit in ("", "K", "M", "G"):
        if count < 1024:
            return f"{count:.1f}{unit}" if unit and count < 10 else f"{count:.0f}{unit}"
        count /= 1024
    return f"{count:.1f}T"
