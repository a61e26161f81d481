"""An out-of-memory kill is seen: in the log, and by a host that asked (containers.md 3.4)."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from support import machine, specs
from support.containers import Container, new_id, shell
from support.daemon import ENVIRONMENT, Daemon, running, wait_until
from support.host import Connection

LIMIT = 16 << 20
#: busybox keeps the last line in memory, and this one has no end.
EATER = "tail /dev/zero"


@pytest.fixture
def asking(daemon: Daemon) -> Iterator[Connection]:
    """A connection that asked for events."""
    connection = daemon.connect(negotiate=False)
    connection.negotiate(UvmdEvents=True)
    yield connection
    connection.close()


@contextlib.contextmanager
def limited(bridge: Connection, *args: str) -> Iterator[Container]:
    container = Container(bridge, new_id())
    spec = specs.container(*args)
    spec["linux"]["resources"]["memory"] = {"limit": LIMIT}
    bridge.create(container.id, spec)
    yield container
    if container.kill() != "SYSTEM_NOT_FOUND":
        container.bridge.wait_for_notification(container.id)
        container.bridge.delete(container.id)


def kills(daemon: Daemon) -> list[dict[str, Any]]:
    return [line for line in daemon.log_lines() if line["msg"].endswith("for lack of memory")]


def wait_for_kill(daemon: Daemon, container_id: str) -> dict[str, Any]:
    def seen() -> dict[str, Any] | None:
        return next((line for line in kills(daemon) if line["container"] == container_id), None)

    line: dict[str, Any] = wait_until(seen, what="the kill is logged")
    return line


def test_a_kill_of_a_child_is_logged_with_its_container_and_told_to_a_host_that_asked(
    daemon: Daemon, asking: Connection
) -> None:
    with limited(asking, *shell(f"{EATER}; sleep 600")) as container:
        container.init()
        event = asking.wait_for_event(container.id, "OutOfMemory")
        assert (event["Kills"], event["LimitBytes"], event["PodId"]) == (1, LIMIT, container.id)
        assert 0 < event["PeakBytes"] <= LIMIT
        line = wait_for_kill(daemon, container.id)
        assert (line["level"], line["limit_bytes"], line["kills"]) == ("warning", LIMIT, 1)
        assert line["cgroup"].startswith(daemon.pods)


def test_an_init_that_is_killed_is_told_as_well(daemon: Daemon, asking: Connection) -> None:
    with limited(asking, *EATER.split()) as container:
        assert container.init().wait() == 137
        asking.wait_for_event(container.id, "OutOfMemory")
        wait_for_kill(daemon, container.id)
    assert len(kills(daemon)) == 1, "each kill is told once"


def test_a_host_that_did_not_ask_sees_no_event(daemon: Daemon, bridge: Connection) -> None:
    with limited(bridge, *shell(f"{EATER}; sleep 600")) as container:
        container.init()
        wait_for_kill(daemon, container.id)
        assert not bridge.pump(0.2), "not one frame that a host does not know"


def test_events_are_for_the_connection_that_asked_and_are_not_kept_for_the_next(
    daemon: Daemon, asking: Connection
) -> None:
    with limited(asking, *shell(f"read line; {EATER}; sleep 600")) as container:
        init = container.init(stdin=True)
        asking.wait_for_event(container.id, "Started")
        asking.close()
        fresh = daemon.connect()
        container.bridge = fresh
        init.stdin.write(b"\n")
        wait_for_kill(daemon, container.id)
        assert not fresh.pump(0.2)
    fresh.close()


def test_the_life_of_a_container_is_told_in_its_order(asking: Connection) -> None:
    with limited(asking, "true") as container:
        container.init().wait()
        asking.wait_for_notification(container.id)
    asking.wait_for_event(container.id, "Deleted")
    told = [event for event in asking.events if event["ContainerId"] == container.id]
    assert [event["Type"] for event in told] == ["Created", "Started", "Exited", "Deleted"]
    assert told[2]["Status"] == 0
    assert all(event["Time"] > 1e9 for event in told)


def test_a_kill_is_seen_by_the_daemon_that_took_the_container_up(daemon: Daemon, asking: Connection) -> None:
    with limited(asking, *shell(f"read line; {EATER}; sleep 600")) as container:
        init = container.init(stdin=True)
        daemon.kill_daemon()
        fresh = daemon.connect()
        assert fresh is asking, "what was negotiated holds"
        fresh.properties(container.id)  # it is taken up
        init.stdin.write(b"\n")
        fresh.wait_for_event(container.id, "OutOfMemory")
    fresh.close()


def test_uvmctl_prints_events_beside_other_commands() -> None:
    uvmctl = str(machine.BIN / "uvmctl")
    root = specs.container("true")["root"]["path"]
    with running(options={"paths-bundle-roots": "/run/gcs"}) as daemon, contextlib.ExitStack() as ending:
        daemon.host.refuse()
        environment = {**ENVIRONMENT, "UVMD_HOST": daemon.host.address}

        def start(*arguments: str, **streams: Any) -> subprocess.Popen[bytes]:
            started = ending.enter_context(subprocess.Popen([uvmctl, *arguments], env=environment, **streams))
            ending.callback(started.terminate)
            return started

        host = start("host", stderr=subprocess.PIPE)
        assert host.stderr is not None
        wait_until(lambda: b"the daemon is connected" in host.stderr.readline(), what="the host is there")
        # The events of two lives; it begins to see them some time after its start.
        watching = start("events", "--json", "-n", "10", stdout=subprocess.PIPE)
        for _ in range(20):
            made = [uvmctl, "run", "--rm", "--read-only", root, "true"]
            subprocess.run(made, env=environment, capture_output=True, timeout=60, check=True)
            if watching.poll() is not None:
                break
        out, _ = watching.communicate(timeout=30)
        told = {json.loads(line)["Type"] for line in out.splitlines()}
        assert told == {"Created", "Started", "Exited", "UnexpectedExit", "Deleted"}


def test_a_line_of_the_kernels_log_is_forwarded_by_its_priority() -> None:
    marks = {level: f"uvmd-test-{secrets.token_hex(8)}" for level in (3, 4, 6)}
    with running(options={"log-kernel-level": "4"}) as daemon:
        daemon.connect().close()
        with open("/dev/kmsg", "w") as log:
            for level, mark in marks.items():
                log.write(f"<{level}>{mark} 50\\%\n")
                log.flush()

        def forwarded() -> dict[str, str]:
            lines = [line for line in daemon.log_lines() if line["msg"] == "kernel"]
            return {line["priority"]: line["text"] for line in lines if line["text"].startswith("uvmd-test-")}

        # In the order of the log, so what is not wanted has been passed over by then.
        wait_until(lambda: marks[4] in str(forwarded()), what="the kernel's line is forwarded")
        assert forwarded() == {"err": f"{marks[3]} 50\\%", "warning": f"{marks[4]} 50\\%"}
