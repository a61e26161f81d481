"""A real monitor for the tests that are marked ``system``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.live_monitor import LiveMonitor


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[LiveMonitor]:
    with LiveMonitor(tmp_path) as live:
        yield live
