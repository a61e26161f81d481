"""A bridge connection that ends takes nothing with it (spec bridge.md 1.4)."""

from __future__ import annotations

import time

from support import specs
from support.containers import created, new_id, shell
from support.daemon import Daemon, is_running, wait_until
from support.host import CREATE, DUMP_STACKS, START, WAIT, ZERO_GUID, Connection, code
from support.matrix import row


@row("reconnect.late-response")
def test_a_response_that_comes_late_is_sent_on_the_next_connection(
    daemon: Daemon, bridge: Connection
) -> None:
    with created(bridge, *shell("read line; exit 23")) as container:
        init = container.init(stdin=True)
        waiting = bridge.send_wait(container.id, init.pid)
        bridge.close()
        fresh = daemon.connect(negotiate=False)
        fresh.continue_ids(waiting + 100)
        fresh.expect(waiting, WAIT)
        init.stdin.write(b"\n")
        time.sleep(0.3)
        assert not fresh.answered(waiting), "nothing goes out before Negotiate was answered"
        fresh.negotiate()
        assert fresh.answer(waiting)["ExitCode"] == 23
        fresh.wait_for_notification(container.id)
        fresh.delete(container.id)
        fresh.close()


@row("reconnect.queued-notification")
def test_notifications_wait_for_the_next_negotiation(daemon: Daemon, bridge: Connection) -> None:
    containers = [new_id() for _ in range(3)]
    inits = []
    for container_id in containers:
        bridge.create(container_id, specs.container(*shell("read line")))
        inits.append(bridge.execute(container_id, stdin=True))
    daemon.host.refuse()
    bridge.close()
    for init in inits:
        init.stdin.write(b"\n")
        wait_until(lambda pid=init.pid: not is_running(pid), what="init has exited")
    daemon.host.listen()
    fresh = daemon.connect(negotiate=False)
    assert not fresh.pump(0.3)
    fresh.negotiate()
    for container_id in containers:
        fresh.wait_for_notification(container_id)
    assert [note["ContainerId"] for note in fresh.notifications] == containers, "first in, first out"
    for container_id in containers:
        fresh.delete(container_id)
    fresh.close()


def test_containers_do_not_notice_a_lost_connection(daemon: Daemon, bridge: Connection) -> None:
    with created(bridge, *shell("while read line; do echo got $line; done; exit 3")) as container:
        init = container.init(stdin=True, stdout=True)
        for n in range(3):
            bridge.close()
            bridge = daemon.connect()
            init.stdin.write(b"%d\n" % n)
            init.stdout.read_until(b"got %d\n" % n)
        init.stdin.half_close()
        container.bridge = bridge
        assert bridge.wait(container.id, init.pid) == 3
        bridge.delete(container.id)
        bridge.close()


def test_the_daemon_dials_for_ever(daemon: Daemon) -> None:
    for _ in range(5):
        daemon.connect().close()
    daemon.host.refuse()
    time.sleep(0.5)
    daemon.host.listen()
    daemon.connect().close()


def test_requests_that_were_running_finish_after_the_connection_is_gone(
    daemon: Daemon, bridge: Connection
) -> None:
    container_id = new_id()
    config = bridge.host.container_config(container_id, specs.container("/bin/true"))
    body = {"ContainerId": container_id, "ActivityId": ZERO_GUID, "ContainerConfig": config}
    creating = bridge.send(CREATE, body)
    bridge.close()
    fresh = daemon.connect(negotiate=False)
    fresh.continue_ids(creating + 10)
    fresh.expect(creating, CREATE)
    fresh.negotiate()
    assert code(fresh.answer(creating)) == "S_OK"
    assert fresh.execute(container_id).wait() == 0
    fresh.delete(container_id)
    fresh.close()


def test_a_host_that_stops_reading_stops_nobody_else(daemon: Daemon, bridge: Connection) -> None:
    with created(
        bridge, *shell("i=0; while [ $i -lt 50 ]; do echo $i; i=$((i+1)); sleep 0.02; done")
    ) as container:
        init = container.init(stdout=True)
        # Far more answers than the socket holds, and nobody takes them; with more requests than
        # these it would not be read either.
        for count in range(900):
            message = DUMP_STACKS if count % 15 == 0 else START
            bridge.send(message, {"ContainerId": "", "ActivityId": ZERO_GUID})
        assert init.stdout.read_all().count(b"\n") == 50
        assert init.wait() == 0


def test_a_host_that_left_more_than_is_kept_for_it_comes_back(daemon: Daemon, bridge: Connection) -> None:
    body = {"ContainerId": "", "ActivityId": ZERO_GUID}
    left = {bridge.send(DUMP_STACKS, body): DUMP_STACKS for _ in range(400)}
    time.sleep(1)
    # Nobody takes the answers, so those to what fills 64 MiB are not written either.
    left |= {bridge.send(START, {**body, "Unknown": "x" * ((16 << 20) - 200)}): START for _ in range(4)}
    time.sleep(0.5)
    bridge.close()
    fresh = daemon.connect(negotiate=False)
    fresh.continue_ids(max(left))
    for number, message in left.items():
        fresh.expect(number, message)
    fresh.negotiate()
    assert code(fresh.answer(max(left))) == "S_OK"
    fresh.close()
