"""Sequential mode: one request at a time, over all connections, waits excepted."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import machine, specs
from support.containers import created, shell
from support.daemon import Daemon, running
from support.host import EXECUTE, START, ZERO_GUID, code
from support.matrix import row

SLOW_S = 1.0


@pytest.fixture
def sequential(tmp_path: Path) -> Iterator[tuple[Daemon, Path]]:
    """A daemon in this mode whose runtime sleeps before an exec where the flag file exists."""
    flag, program = tmp_path / "slow", tmp_path / "crun"
    program.write_text(
        f"#!/bin/sh\ncase \" $* \" in *' exec '*) [ -e {flag} ] && sleep {SLOW_S};; esac\n"
        f'exec {machine.runtime_path("crun")} "$@"\n'
    )
    program.chmod(0o755)
    with running(runtime=str(program), options={"vm-sequential": "always"}) as daemon:
        yield daemon, flag


@row("sequential.one-at-a-time")
def test_a_request_waits_for_the_one_before_it(sequential: tuple[Daemon, Path]) -> None:
    daemon, flag = sequential
    bridge = daemon.connect()
    with created(bridge, *shell("read line; exit 4")) as container:
        init = container.init(stdin=True)
        waiting = bridge.send_wait(container.id, init.pid)  # holds up nobody
        flag.touch()
        base = {"ContainerId": container.id, "ActivityId": ZERO_GUID}
        settings = {"ProcessParameters": json.dumps({"OciProcess": specs.process("/bin/true")})}
        slow = bridge.send(EXECUTE, {**base, "Settings": settings})
        began = time.monotonic()
        quick = bridge.send(START, base)
        assert code(bridge.answer(quick)) == "S_OK"
        assert time.monotonic() - began > SLOW_S * 0.8
        assert bridge.order.index(slow) < bridge.order.index(quick)
        flag.unlink()
        init.stdin.write(b"\n")
        assert bridge.answer(waiting)["ExitCode"] == 4
        bridge.answer(slow)
    bridge.close()


def test_the_turn_is_the_hosts_and_not_the_connections(sequential: tuple[Daemon, Path]) -> None:
    daemon, flag = sequential
    bridge = daemon.connect()
    with created(bridge, "/bin/sleep", "60") as container:
        container.init()
        flag.touch()
        base = {"ContainerId": container.id, "ActivityId": ZERO_GUID}
        settings = {"ProcessParameters": json.dumps({"OciProcess": specs.process("/bin/true")})}
        began = time.monotonic()
        left = bridge.send(EXECUTE, {**base, "Settings": settings})
        time.sleep(0.1)
        bridge.close()
        fresh = daemon.connect(negotiate=False)
        fresh.continue_ids(left + 10)
        fresh.expect(left, EXECUTE)
        fresh.negotiate()
        assert code(fresh.ask(START, base)) == "S_OK"
        assert time.monotonic() - began > SLOW_S * 0.8
        assert code(fresh.answer(left)) == "S_OK"
        flag.unlink()
        container.bridge = fresh
        container.kill()
        fresh.wait_for_notification(container.id)
        container.delete()
        fresh.close()
