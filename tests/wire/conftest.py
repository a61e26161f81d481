"""Every test here drives the real daemon from outside; all need root."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemon import Daemon, running
from support.host import Connection
from support.matrix import summary

HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "row(*ids): rows of matrix.toml that the test covers")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents and item.path.name != "test_matrix.py":
            item.add_marker("system")
            item.add_marker("root")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in summary(HERE):
        terminalreporter.write_line(line)


@pytest.fixture(scope="module")
def steady_daemon() -> Iterator[Daemon]:
    """One daemon for a whole module, for tests that leave no trace in it."""
    with running(runtime="crun") as started:
        yield started


@pytest.fixture(scope="module")
def steady(steady_daemon: Daemon) -> Iterator[Connection]:
    """The negotiated connection of the module's daemon."""
    connection = steady_daemon.connect()
    yield connection
    connection.close()
