"""The kernel is made ready for a container's move as soon as the request is there."""

from __future__ import annotations

import pytest

from support.containers import run
from support.daemon import running

pytestmark = pytest.mark.root


def test_the_daemon_may_move_itself_to_where_it_is() -> None:
    with running(options={"log-level": "debug"}) as daemon:
        bridge = daemon.connect()
        for _ in range(2):
            assert run(bridge, "/bin/true").exit_code == 0
        bridge.close()
    said = [line["msg"] for line in daemon.log_lines() if "ready for moves" in line["msg"]]
    assert said == ["the kernel is made ready for moves between cgroups"]
