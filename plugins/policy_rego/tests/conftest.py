from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# The tests of a plugin are no package: what they share is found beside them.
sys.path.insert(0, str(Path(__file__).parent))

_unchecked = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def not_checked(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Say in the run's summary what was not checked, since its data are not this repository's."""
    return pytestconfig.stash.setdefault(_unchecked, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash.get(_unchecked, []):
        terminalreporter.write_line(f"NOT checked {line}", yellow=True)
