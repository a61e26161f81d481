"""Fixtures that every test may ask for.

``runtime`` runs a test once with crun and once with runc; ``daemon`` is a running daemon
that must stop cleanly and leave nothing; ``bridge`` its negotiated connection.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support import machine
from support.daemon import Daemon, running
from support.host import Connection


def pytest_report_header() -> str:
    return f"machine: {machine.describe()}"


@pytest.fixture(params=machine.RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def daemon(runtime: str) -> Iterator[Daemon]:
    with running(runtime=runtime) as started:
        yield started


@pytest.fixture
def bridge(daemon: Daemon) -> Iterator[Connection]:
    connection = daemon.connect()
    yield connection
    connection.close()
