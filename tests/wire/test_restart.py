"""The daemon may die at any moment: containers, output and exit codes outlive it."""

from __future__ import annotations

import time

import pytest

from support import specs
from support.containers import created, new_id, run, shell
from support.daemon import Daemon, is_running, wait_until
from support.host import CREATE, DELETE, NULL_ID, RESIZE, ZERO_GUID, Connection, code
from support.leaks import Snapshot, assert_nothing_left
from support.matrix import row


def restart(daemon: Daemon, bridge: Connection) -> Connection:
    """Kill the daemon; the connection stays."""
    before = daemon.kill_daemon()
    fresh = daemon.connect()
    assert fresh is bridge
    wait_until(lambda: daemon.find_daemon() not in (None, before), what="another daemon")
    return fresh


@row("restart.output-and-exit")
def test_no_byte_and_no_exit_code_is_lost(daemon: Daemon, bridge: Connection) -> None:
    script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; read go; echo last; exit 42"
    with created(bridge, *shell(script)) as container:
        init = container.init(stdin=True, stdout=True)
        init.stdout.read_until(b"line 1\n")
        fresh = restart(daemon, bridge)
        container.bridge = fresh
        assert is_running(init.pid)
        init.stdin.write(b"go\n")
        assert fresh.wait(container.id, init.pid) == 42
        whole = "".join(f"line {n}\n" for n in range(3000)) + "last\n"
        assert init.stdout.read_all().decode() == whole
        assert fresh.wait_for_notification(container.id)["Type"] == "UnexpectedExit"
        fresh.delete(container.id)


@row("restart.exit-while-away")
def test_an_exit_while_no_daemon_was_there_is_reported(daemon: Daemon, bridge: Connection) -> None:
    container_id = new_id()
    bridge.create(container_id, specs.container(*shell("read line; exit 17")))
    init = bridge.execute(container_id, stdin=True)
    daemon.kill_daemon()
    init.stdin.write(b"\n")
    bridge.close()
    fresh = daemon.connect()
    assert fresh.wait(container_id, init.pid) == 17
    fresh.wait_for_notification(container_id)
    fresh.delete(container_id)
    fresh.close()


def test_a_new_daemon_serves_everything_of_an_old_container(daemon: Daemon, bridge: Connection) -> None:
    with created(bridge, "/bin/sleep", "60", terminal=True) as container:
        init = container.init(stdin=True, stdout=True)
        exec_ = container.exec("/bin/sleep", "60")
        external = bridge.execute(
            NULL_ID, parameters={"CommandArgs": ["sleep", "60"], "Environment": {"PATH": "/bin"}}
        )
        fresh = restart(daemon, bridge)
        container.bridge = fresh
        pids = {entry["ProcessId"] for entry in fresh.properties(container.id, "ProcessList")["ProcessList"]}
        assert {init.pid, exec_.pid} <= pids
        assert fresh.properties(container.id, "Statistics")["LCOWMetrics"]["pids"]["current"] >= 2
        assert container.exec(*shell("exit 3")).wait() == 3
        body = {"ContainerId": container.id, "ActivityId": ZERO_GUID, "ProcessId": init.pid}
        assert code(fresh.ask(RESIZE, {**body, "Height": 20, "Width": 30})) == "S_OK"
        fresh.signal(container.id, exec_.pid, 15)
        assert fresh.wait(container.id, exec_.pid) == 143
        fresh.signal(NULL_ID, external.pid, 9)
        assert fresh.wait(NULL_ID, external.pid) == 137
        # The id is still taken.
        config = fresh.host.container_config(container.id, specs.container("/bin/true"))
        again = fresh.ask(
            CREATE, {"ContainerId": container.id, "ActivityId": ZERO_GUID, "ContainerConfig": config}
        )
        assert code(again) == "SYSTEM_ALREADY_EXISTS"
        fresh.signal(container.id, init.pid, 9)
        assert fresh.wait(container.id, init.pid) == 137
        assert fresh.wait_for_notification(container.id)["Type"] == "ForcedExit"
        fresh.delete(container.id)


def test_a_container_that_was_only_created_can_be_started(daemon: Daemon, bridge: Connection) -> None:
    container_id = new_id()
    bridge.create(container_id, specs.container(*shell("cat; exit 8")))
    fresh = restart(daemon, bridge)
    init = fresh.execute(container_id, stdin=True, stdout=True)
    init.stdin.write(b"after the restart")
    init.stdin.half_close()
    assert init.wait() == 8
    assert init.stdout.read_all() == b"after the restart"
    fresh.delete(container_id)
    fresh.close()


def test_a_stopped_container_can_be_deleted_and_nothing_is_left(daemon: Daemon, bridge: Connection) -> None:
    run(bridge, "/bin/true")
    before = Snapshot.take(daemon)
    container_id = new_id()
    bridge.create(container_id, specs.container("/bin/true"))
    assert bridge.execute(container_id).wait() == 0
    fresh = restart(daemon, bridge)
    fresh.delete(container_id)
    body = {"ContainerId": container_id, "ActivityId": ZERO_GUID}
    assert code(fresh.ask(DELETE, body)) == "SYSTEM_NOT_FOUND"
    run(fresh, "/bin/true")
    assert_nothing_left(daemon, before)
    fresh.close()


def test_one_notification_comes_in_all(daemon: Daemon, bridge: Connection) -> None:
    container_id = new_id()
    bridge.create(container_id, specs.container("/bin/true"))
    assert bridge.execute(container_id).wait() == 0
    bridge.wait_for_notification(container_id)
    fresh = restart(daemon, bridge)
    time.sleep(0.5)
    assert not fresh.answered(10**9)
    assert len(fresh.notifications) == 1, "a second one kills a real bridge"
    fresh.delete(container_id)
    fresh.close()


@pytest.mark.parametrize("delay_s", [0.0, 0.005, 0.02, 0.05])
def test_a_kill_in_the_middle_of_create_makes_a_container_all_the_same(
    daemon: Daemon, bridge: Connection, delay_s: float
) -> None:
    run(bridge, "/bin/true")
    before = Snapshot.take(daemon)
    container_id = new_id()
    config = bridge.host.container_config(container_id, specs.container("/bin/true"))
    body = {"ContainerId": container_id, "ActivityId": ZERO_GUID}
    creating = bridge.send(CREATE, {**body, "ContainerConfig": config})
    time.sleep(delay_s)
    restart(daemon, bridge)
    assert code(bridge.answer(creating)) == "S_OK"
    assert bridge.execute(container_id).wait() == 0
    bridge.delete(container_id)
    run(bridge, "/bin/true")
    assert_nothing_left(daemon, before, timeout_s=12)


def test_output_flows_while_daemons_die_one_after_another(daemon: Daemon, bridge: Connection) -> None:
    script = "i=0; while [ $i -lt 60 ]; do echo $i; i=$((i+1)); sleep 0.05; done; exit 1"
    with created(bridge, *shell(script)) as container:
        init = container.init(stdout=True)
        for _ in range(3):
            bridge = restart(daemon, bridge)
            time.sleep(0.1)
        container.bridge = bridge
        assert bridge.wait(container.id, init.pid) == 1
        assert init.stdout.read_all().split() == [str(n).encode() for n in range(60)]
        bridge.delete(container.id)


def test_the_monitor_stays_the_same_process(daemon: Daemon, bridge: Connection) -> None:
    monitor = daemon.monitor_pid
    fresh = restart(daemon, bridge)
    assert is_running(monitor)
    assert daemon.monitor_pid == monitor
    fresh.close()
