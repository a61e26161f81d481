"""Two hundred lives and a thousand execs later, everything is as it was."""

from __future__ import annotations

import pytest

from support import specs
from support.containers import created, new_id, shell
from support.daemon import Daemon, wait_until
from support.host import Connection
from support.leaks import Snapshot, assert_nothing_left

WARM_UP, LIVES, EXECS = 20, 200, 1000
GROWTH = 1.05


def lives(bridge: Connection, count: int) -> None:
    """Lives as hosts lead them: with streams, without, with a terminal, killed."""
    for number in range(count):
        container_id = new_id()
        kind = number % 4
        bridge.create(container_id, specs.container(*shell("echo hello; exit 3"), terminal=kind == 2))
        bridge.start(container_id)
        init = bridge.execute(container_id, stdin=kind > 1, stdout=kind > 0, stderr=kind == 1)
        assert init.wait() == 3
        for name in ("In", "Out", "Err"):
            if name in init._streams:
                init._streams[name].close()
        bridge.wait_for_notification(container_id)
        bridge.delete(container_id)


def execs(bridge: Connection, container_id: str, count: int) -> None:
    process = specs.process("/bin/true")
    for number in range(count):
        exec_ = bridge.execute(container_id, process, stdout=number % 4 == 0)
        assert exec_.wait() == 0
        if number % 4 == 0:
            assert exec_.stdout.read_all() == b""


def assert_no_growth(before: Snapshot, after: Snapshot) -> None:
    assert after.daemon_rss_kib <= before.daemon_rss_kib * GROWTH
    assert after.monitor_rss_kib <= before.monitor_rss_kib * GROWTH
    assert after.daemon_threads <= before.daemon_threads


def after_idling(daemon: Daemon, before: Snapshot) -> Snapshot:
    """A snapshot once threads that have nothing to do are gone: a pool keeps them for 30 s."""
    wait_until(
        lambda: Snapshot.take(daemon).daemon_threads <= before.daemon_threads, 60, what="idle threads to end"
    )
    return Snapshot.take(daemon)


@pytest.mark.slow
def test_lives_and_execs_leave_nothing_and_cost_no_memory(daemon: Daemon, bridge: Connection) -> None:
    lives(bridge, WARM_UP)
    with created(bridge, "/bin/sleep", "600") as container:
        container.init()
        execs(bridge, container.id, WARM_UP)
    before = Snapshot.settled(daemon)
    lives(bridge, LIVES - WARM_UP)
    assert_nothing_left(daemon, before)
    assert_no_growth(before, after_idling(daemon, before))
    with created(bridge, "/bin/sleep", "600") as container:
        container.init()
        execs(bridge, container.id, EXECS - WARM_UP)
    assert_nothing_left(daemon, before)
    assert_no_growth(before, after_idling(daemon, before))


def test_reconnects_leave_nothing(daemon: Daemon) -> None:
    for _ in range(3):
        daemon.connect().close()
    bridge = daemon.connect()
    before = Snapshot.settled(daemon)
    bridge.close()
    for _ in range(10):
        daemon.connect().close()
    bridge = daemon.connect()
    assert_nothing_left(daemon, before)
    bridge.close()


def test_waits_that_time_out_leave_nothing(daemon: Daemon, bridge: Connection) -> None:
    with created(bridge, "/bin/sleep", "60") as container:
        init = container.init()
        before = Snapshot.take(daemon)
        waits = [bridge.send_wait(container.id, init.pid, 20) for _ in range(2000)]
        assert {bridge.answer(wait)["Result"] & 0xFFFFFFFF for wait in waits} == {0xC0370109}
        assert_nothing_left(daemon, before)
        assert Snapshot.take(daemon).daemon_threads <= before.daemon_threads + 1
