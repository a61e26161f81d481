"""``uvmctl trace``: where the time of a request went."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any, Final

import click

from uvmd.client import Client
from uvmd.client.protocol import NULL_ID
from uvmd_telemetry.waterfall import LEAST_COLUMNS, chrome, picture

_KIND: Final = "uvmd.traces"
#: Of an id, at least; as many more as tell it from the others.
_SHORTEST: Final = 8
_COLUMNS: Final = ("WHEN", "ID", "REQUESTS", "CONTAINER", "MS", "")

Told = Mapping[str, Any]


@click.command("trace", short_help="Show where the time of a request went, step by step.")
@click.option(
    "-n", "--count", type=click.IntRange(min=1), default=20, show_default=True, help="List so many."
)
@click.option("--all", "everything", is_flag=True, help="Show the smallest steps, list negotiations too.")
@click.option("--json", "as_json", is_flag=True, help="What the daemon tells, in nanoseconds.")
@click.option(
    "--chrome", "file", type=click.File("w"), help="Write Chrome trace events, for ui.perfetto.dev."
)
@click.argument("activity", required=False)
@click.pass_obj
def trace(
    client: Client, activity: str | None, count: int, everything: bool, as_json: bool, file: IO[str] | None
) -> None:
    """Show where the time of ACTIVITY went, step by step; without it, list what is kept.

    ACTIVITY is an activity id as the host gave it, a trace id, or the beginning of one that
    the list shows. The daemon keeps the newest requests in memory, not those of uvmctl's
    own looks; a restarted daemon begins anew.

    \b
      uvmctl trace
      uvmctl trace 4bf92f35
      uvmctl trace 4bf92f35 --chrome trace.json     open it in ui.perfetto.dev
      uvmctl trace 4bf92f35 --json | jq '.requests[0].steps'
    """
    if activity is None:
        if file is not None:
            raise click.UsageError("--chrome needs an ACTIVITY; `uvmctl trace` lists them")
        told = _ask(client, "")
        click.echo(json.dumps(told) if as_json else listing(told, count, _columns(), everything=everything))
        return
    told = _ask(client, activity)
    if not told["requests"]:
        raise click.ClickException(missing(activity, told, time.time()))
    if file is not None:
        json.dump(chrome(told["requests"]), file)
    if as_json:
        click.echo(json.dumps(told))
    elif file is None:
        click.echo(report(told, _columns(), everything=everything, unicode=_is_unicode()))


def _ask(client: Client, what: str) -> Told:
    kind = f"{_KIND}:{what}" if what else _KIND
    told: Told | None = client.properties(NULL_ID, [kind]).get(kind)
    if told is None:
        raise click.ClickException(
            "the VM keeps no traces: its uvmd has no uvmd-telemetry, or an earlier one"
        )
    return told


def _columns() -> int:
    return shutil.get_terminal_size((80, 24)).columns


def _is_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def listing(told: Told, count: int, columns: int = 80, *, everything: bool = False) -> str:
    """Return a table of ids, newest last, a line each: its requests and how long they took in all.

    Negotiations are left out, unless one failed: every command of uvmctl begins with one.
    """
    groups: dict[str, list[Told]] = {}
    for request in told["requests"]:
        if everything or request["name"] != "negotiate" or request["error"]:
            groups.setdefault(request["id"], []).append(request)
    if not groups:
        return (
            "nothing but negotiations; --all lists them"
            if told["requests"]
            else _kept_text(told, time.time())
        )
    newest = list(groups.items())[-count:]
    length = _telling_length(list(groups))
    cells = [_COLUMNS, *(_row(key[:length], requests) for key, requests in newest)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_COLUMNS))]
    # The names of containers give way first; nothing else is as long.
    widths[3] = max(9, min(widths[3], max(columns, LEAST_COLUMNS) - sum(widths) + widths[3] - 10))
    lines = []
    for row in cells:
        words = [
            word[:width].rjust(width) if column == 4 else word[:width].ljust(width)
            for column, (word, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(words).rstrip())
    return "\n".join(lines)


def _row(key: str, requests: Sequence[Told]) -> tuple[str, ...]:
    names = [request["name"] for request in requests]
    text = " ".join(names[:2]) + (f" +{len(names) - 2}" if len(names) > 2 else "")
    containers = dict.fromkeys(request["container"] for request in requests)
    took = sum(request["duration_ns"] for request in requests) / 1e6
    failed = "failed" if any(request["error"] for request in requests) else ""
    return _clock(requests[0]["start_ns"]), key, text, _of_vm(next(iter(containers))), f"{took:.1f}", failed


def _of_vm(container: str) -> str:
    return "-" if container in ("", NULL_ID) else container


def _telling_length(ids: Sequence[str]) -> int:
    """Return how much of an id tells it from all others."""
    longest = max(map(len, ids))
    for length in range(_SHORTEST, longest):
        if len({one[:length] for one in ids}) == len(ids):
            return length
    return longest


def report(told: Told, columns: int, *, everything: bool = False, unicode: bool = True) -> str:
    """Return the pictures of all requests of an id."""
    lines = []
    for request in told["requests"]:
        took = f"{request['duration_ns'] / 1e6:.3f} ms"
        rest = f"{took}  {_clock(request['start_ns'], ms=True)}"
        room = max(columns, LEAST_COLUMNS) - len(request["name"]) - len(rest) - 4
        lines.append(f"{request['name']}  {_of_vm(request['container'])[:room]}  {rest}")
        lines += picture(request, columns, everything=everything, unicode=unicode)
        if request["error"]:
            lines.append(f"failed: {request['error']}")
        lines.append("")
    if told["left_out"]:
        lines.append(f"{told['left_out']} earlier requests of this id are left out")
    return "\n".join(lines).rstrip()


def missing(activity: str, told: Told, now: float) -> str:
    """Return why there is nothing to show."""
    if told.get("choices"):
        return f"{activity} is the beginning of several: {', '.join(told['choices'])}"
    return f"no trace of {activity}; {_kept_text(told, now)}"


def _kept_text(told: Told, now: float) -> str:
    if not told["most_spans"]:
        return "none are kept: [plugin.telemetry] trace_spans is 0"
    if not told["kept_requests"]:
        return "nothing was asked of the daemon yet"
    since = max(0.0, now - told["oldest_ns"] / 1e9)
    return (
        f"kept are the last {told['kept_requests']} requests, of {since:.0f} s"
        f" ({told['kept_spans']} of at most {told['most_spans']} spans); `uvmctl trace` lists them"
    )


def _clock(start_ns: int, *, ms: bool = False) -> str:
    text = time.strftime("%H:%M:%S", time.localtime(start_ns / 1e9))
    return f"{text}.{start_ns // 1_000_000 % 1000:03d}" if ms else text
