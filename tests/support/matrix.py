"""The matrix of wire behaviour: which row has a test, and which is open until a later issue."""

from __future__ import annotations

import ast
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

row = pytest.mark.row


@dataclass(frozen=True, slots=True)
class Row:
    """One behaviour of the specification."""

    id: str
    text: str
    issue: int


def _rows(document: Any) -> list[Row]:
    return [
        Row(entry["id"], f"{entry.get('message', '')} {entry.get('condition', '')}".strip(), entry["issue"])
        for entry in document["row"]
    ]


def load(folder: Path) -> list[Row]:
    """Every row of ``matrix.toml``."""
    return _rows(tomllib.loads((folder / "matrix.toml").read_text()))


def resolved(folder: Path) -> set[int]:
    """Issues whose rows must have tests by now."""
    return set(tomllib.loads((folder / "resolved.toml").read_text())["issues"])


def claimed(folder: Path) -> set[str]:
    """Row ids that stand in a ``row(...)`` of some test file."""
    found: set[str] = set()
    for path in folder.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "row":
                found |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    return found


def summary(folder: Path) -> list[str]:
    """The lines a run prints: covered, and open with the issue that will build the cause."""
    if not (folder / "matrix.toml").exists():
        return []
    rows, tested, done = load(folder), claimed(folder), resolved(folder)
    uncovered = [entry for entry in rows if entry.id not in tested]
    open_rows = [entry for entry in uncovered if entry.issue not in done]
    missing = len(uncovered) - len(open_rows)
    head = f"matrix: {len(rows)} rows, {len(rows) - len(uncovered)} covered, {len(open_rows)} open"
    lines = [head + (f", {missing} MISSING" if missing else "")]
    return lines + [f"  open until issue {entry.issue}: {entry.id}  {entry.text}" for entry in open_rows]
