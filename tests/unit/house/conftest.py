"""Large rooms are reported after the tests of the house; past 500 lines a test fails."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LARGE = 300


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for path in sorted([*ROOT.glob("core/src/**/*.py"), *ROOT.glob("plugins/*/src/**/*.py")]):
        if (lines := len(path.read_text().splitlines())) > LARGE:
            terminalreporter.write_line(f"a large room: {path.relative_to(ROOT)}, {lines} lines")
