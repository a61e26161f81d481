"""The table that `make bench` prints, and its twin in JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line: what was measured, against which bar, beside which baseline."""

    what: str
    bar: float
    measured: float
    unit: str
    baseline: str = ""
    samples: int = 0

    @property
    def passed(self) -> bool:
        return self.measured <= self.bar


def milliseconds(seconds: Sequence[float]) -> float:
    """The median of the samples, in ms."""
    return statistics.median(seconds) * 1000


def show(value: float, unit: str) -> str:
    text = f"{value:.3f}" if value < 10 else f"{value:.1f}"
    return f"{text} {unit}".strip()


def table(figures: Sequence[Figure]) -> str:
    head = ("what", "at most", "measured", "pass", "beside it, in the same run")
    rows = [
        (
            figure.what,
            show(figure.bar, figure.unit),
            show(figure.measured, figure.unit),
            "yes" if figure.passed else "NO",
            figure.baseline,
        )
        for figure in figures
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    title = "  ".join(cell.ljust(width) for cell, width in zip(head, widths, strict=True)).rstrip()
    return "\n".join([title, "-" * len(title), *lines])


def as_json(facts: dict[str, object], figures: Sequence[Figure]) -> str:
    return json.dumps(
        {**facts, "figures": [{**asdict(figure), "passed": figure.passed} for figure in figures]}, indent=1
    )
