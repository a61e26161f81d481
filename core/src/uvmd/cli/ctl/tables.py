"""Aligned tables and amounts that people can read."""

from __future__ import annotations

from collections.abc import Sequence

_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")
#: What a limit reads that is none: 2^63 rounded down to a page, or all bits set.
_UNLIMITED_BYTES = 1 << 60


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[str] = ()) -> str:
    """Return rows under headers, aligned with two spaces between columns.

    Args:
        right: headers of the columns whose cells are numbers and stand at the right.
    """
    cells = [[*headers], *[["-" if cell in ("", None) else str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    lines = []
    for row in cells:
        line = (
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(headers, row, widths, strict=True)
        )
        lines.append("  ".join(line).rstrip())
    return "\n".join(lines)


def size(count: int) -> str:
    """Return bytes with a unit: ``512 B``, ``1.5 MiB``."""
    value = float(count)
    for unit in _SIZES:
        if value < 1024 or unit == _SIZES[-1]:
            break
        value /= 1024
    return f"{value:.0f} {unit}" if value >= 100 or unit == "B" else f"{value:.1f} {unit}"


def limit(count: int) -> str:
    """Return a limit in bytes; what stands for "no limit" becomes a dash."""
    return "-" if not count or count >= _UNLIMITED_BYTES else size(count)


def duration(seconds: float) -> str:
    """Return a measured time with the unit that suits it: ``340 us``, ``12.3 ms``, ``4.0 s``, ``2m05s``."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return age(seconds)


def age(seconds: float) -> str:
    """Return how old something is, roughly: ``12s``, ``2m05s``, ``3h20m``, ``2d07h``."""
    minutes, rest = divmod(int(seconds), 60)
    if not minutes:
        return f"{rest}s"
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h{minutes:02d}m"
    return f"{hours // 24}d{hours % 24:02d}h"
