"""Reading the small text files in which the kernel counts."""

from __future__ import annotations

from typing import Any, Final

from uvmd.linux.cgroups import read_file

#: What the word ``max`` stands for.
UNLIMITED: Final = (1 << 64) - 1

Stats = dict[str, Any]


def number(text: bytes) -> int:
    """Return the number in a file of one; ``max`` is UNLIMITED, nothing is 0."""
    text = text.strip()
    return UNLIMITED if text == b"max" else int(text or 0)


def read_number(path: str) -> int:
    """Read a file that holds one number."""
    return number(read_file(path))


def read_pairs(path: str) -> dict[str, int]:
    """Read a file of ``name value`` lines; lines of another form are skipped."""
    pairs = {}
    for line in read_file(path).decode("ascii", "replace").splitlines():
        name, _, value = line.partition(" ")
        if value.isdigit():
            pairs[name] = int(value)
    return pairs


def pick(pairs: dict[str, int], keys: dict[str, str]) -> Stats:
    """Return the numbers other than 0 whose names are known, under their keys."""
    return {key: pairs[name] for name, key in keys.items() if pairs.get(name)}


def without_zeros(**numbers: int) -> Stats:
    """Return the numbers other than 0."""
    return {key: number for key, number in numbers.items() if number}
