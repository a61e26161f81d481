"""A real monitor for the tests marked ``system``, its parts for the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.live_monitor import LiveMonitor
from support.monitor_parts import Parts


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[LiveMonitor]:
    with LiveMonitor(tmp_path) as live:
        yield live


@pytest.fixture
def parts() -> Iterator[Parts]:
    made = Parts()
    yield made
    made.close()
