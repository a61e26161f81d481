"""The table that `make bench` prints, and its twin in JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line: what was measured, against which bar (None: shown only), beside which baseline."""

    what: str
    bar: float | None
    measured: float
    unit: str
    baseline: str = ""
    samples: int = 0
    #: Under which stance, where there is more than one.
    stance: str = "measured"

    @property
    def passed(self) -> bool:
        return self.bar is None or self.measured <= self.bar


def milliseconds(seconds: Sequence[float]) -> float:
    """The median of the samples, in ms."""
    return statistics.median(seconds) * 1000


def show(value: float, unit: str) -> str:
    text = f"{value:.3f}" if value < 10 else f"{value:.1f}"
    return f"{text} {unit}".strip()


def table(figures: Sequence[Figure]) -> str:
    """A line for each thing measured, a column for each stance; the baseline is that of the first."""
    stances = list(dict.fromkeys(figure.stance for figure in figures))
    lines: dict[str, dict[str, Figure]] = {}
    for figure in figures:
        lines.setdefault(figure.what, {})[figure.stance] = figure
    head = ("what", "at most", *stances, "pass", "beside it, in the same run")
    rows = [head]
    for what, found in lines.items():
        first = next(iter(found.values()))
        cells = [show(found[one].measured, found[one].unit) if one in found else "" for one in stances]
        bar = "" if first.bar is None else show(first.bar, first.unit)
        passed = "yes" if all(figure.passed for figure in found.values()) else "NO"
        rows.append((what, bar, *cells, passed, first.baseline))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    title, *rest = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
    return "\n".join([title, "-" * len(title), *rest])


def as_json(facts: dict[str, object], figures: Sequence[Figure]) -> str:
    return json.dumps(
        {**facts, "figures": [{**asdict(figure), "passed": figure.passed} for figure in figures]}, indent=1
    )
