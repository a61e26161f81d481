"""A request and its steps as a picture in a terminal, and as Chrome's trace events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

#: The narrowest picture; what has less room is wrapped by the terminal.
LEAST_COLUMNS: Final = 60
MOST_COLUMNS: Final = 140
_NAME: Final = 27
_NUMBERS: Final = 20
#: Of the request and in ns: what takes less than both is not worth a line.
_SMALL_SHARE: Final = 0.01
_SMALL_NS: Final = 100_000
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
BETWEEN: Final = "(in no step)"

Told = Mapping[str, Any]


class Step(NamedTuple):
    """One line. ``own_ns`` is what it did not spend in the steps within it."""

    name: str
    depth: int
    offset_ns: int
    duration_ns: int
    error: str
    own_ns: int


def steps_of(request: Told) -> list[Step]:
    """Read the steps of a request as ``uvmd.traces`` tells them."""
    rows = [
        (str(name), int(d), int(at), int(took), str(error)) for name, d, at, took, error in request["steps"]
    ]
    own = [took for _, _, _, took, _ in rows]
    inside: list[int] = []  # the steps that the one at hand is within, by depth
    for number, (_, depth, _, took, _) in enumerate(rows):
        del inside[depth:]
        if inside:
            own[inside[-1]] -= took
        inside.append(number)
    return [Step(*row, max(0, own_ns)) for row, own_ns in zip(rows, own, strict=True)]


def between_ns(request: Told, steps: Sequence[Step]) -> int:
    """Return how long the request was in none of its steps."""
    return max(0, int(request["duration_ns"]) - sum(step.duration_ns for step in steps if step.depth == 0))


def picture(request: Told, columns: int, *, everything: bool = False, unicode: bool = True) -> Iterator[str]:
    """Yield the lines of a request's picture: name, when it began, how long it took, and a bar.

    What itself took longest is marked with its share of the request.
    """
    arrow = "◀" if unicode else "<"
    total = max(1, int(request["duration_ns"]))
    steps = steps_of(request)
    room = max(LEAST_COLUMNS, min(columns, MOST_COLUMNS)) - _NAME - _NUMBERS
    between = between_ns(request, steps)
    biggest = max(steps, key=lambda step: step.own_ns, default=None)
    if biggest is not None and biggest.own_ns < between:
        biggest = None
    shown, hidden = _worth_showing(steps, total, everything)
    if not steps:
        yield "no steps are known of it"
        return
    yield f"{'':{_NAME}}{'begin ms':>9}{'took ms':>9}"
    for step in shown:
        name = "  " * step.depth + step.name
        if len(name) >= _NAME:
            name = f"{name[: _NAME - 2]}~"
        bar = _bar(step.offset_ns / total, step.duration_ns / total, room, unicode)
        mark = f"{arrow} {step.own_ns / total:.0%}" if step is biggest else ""
        note = " ".join(word for word in (mark, step.error) if word)
        times = f"{_ms(step.offset_ns):>9}{_ms(step.duration_ns):>9}"
        yield f"{name:{_NAME}}{times}  {_noted(bar, note, room)}".rstrip()
    if everything or between > _SMALL_SHARE * total:
        mark = f"  {arrow} {between / total:.0%}" if biggest is None else ""
        yield f"{BETWEEN:{_NAME}}{'':9}{_ms(between):>9}{mark}"
    if hidden:
        took = _ms(sum(step.own_ns for step in hidden))
        yield f"{f'{len(hidden)} smaller ones':{_NAME}}{'':9}{took:>9}  (see --all)"


def _worth_showing(steps: Sequence[Step], total: int, everything: bool) -> tuple[list[Step], list[Step]]:
    shown: list[Step] = []
    hidden: list[Step] = []
    for step in steps:
        small = step.duration_ns < _SMALL_SHARE * total and step.duration_ns < _SMALL_NS
        (hidden if small and not step.error and not everything else shown).append(step)
    return shown, hidden


def _bar(offset: float, share: float, room: int, unicode: bool) -> str:
    """Return a bar of ``share`` of the room, ``offset`` into it; something is seen of the smallest."""
    begin = min(max(0.0, offset) * room, room - 1 / 8)
    length = min(share * room, room - begin)
    if not unicode:
        return " " * int(begin) + "#" * max(1, round(length))
    # A character is begun at its left: eighths are exact at the end of a bar only.
    whole, eighths = divmod(max(1, round(length * 8)), 8)
    return " " * int(begin) + "█" * whole + (_EIGHTHS[eighths] if eighths else "")


def _noted(bar: str, note: str, room: int) -> str:
    """Put a note behind a bar, or, where there is no room, before it, or else in its place."""
    if not note or len(bar) + 1 + len(note) <= room:
        return f"{bar} {note}".rstrip()
    free = len(bar) - len(bar.lstrip())
    if free > len(note):
        return f"{' ' * (free - len(note) - 1)}{note} {bar.lstrip()}"
    return f"{bar[: max(0, room - 1 - len(note))]} {note}"[:room]


def _ms(ns: int) -> str:
    ms = ns / 1e6
    return f"{ms:.3f}" if ms < 10 else f"{ms:.1f}"


def chrome(requests: Sequence[Told]) -> dict[str, Any]:
    """Return the requests in the Trace Event Format, each as a thread of its own.

    https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU; times are
    microseconds. Read by chrome://tracing, Perfetto and speedscope.
    """
    events: list[dict[str, Any]] = [{"name": "process_name", "ph": "M", "pid": 1, "args": {"name": "uvmd"}}]
    for thread, request in enumerate(requests, 1):
        label = " ".join(word for word in (request["name"], request["container"]) if word)
        at = {"pid": 1, "tid": thread}
        events.append({"name": "thread_name", "ph": "M", **at, "args": {"name": label}})
        args = {key: request[key] for key in ("trace_id", "container", "error") if request[key]}
        start_ns = int(request["start_ns"])
        events.append(_complete(request["name"], start_ns, request["duration_ns"], at, args))
        for name, _, offset_ns, duration_ns, error in request["steps"]:
            events.append(
                _complete(name, start_ns + offset_ns, duration_ns, at, {"error": error} if error else {})
            )
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _complete(name: str, start_ns: int, duration_ns: int, at: Told, args: Told) -> dict[str, Any]:
    event = {"name": name, "cat": "uvmd", "ph": "X", "ts": start_ns / 1000, "dur": duration_ns / 1000}
    return {**event, **at, "args": args}
