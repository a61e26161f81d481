"""The daemon is killed in the middle of a request; the host's one connection stays and is answered."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import specs
from support.containers import created, new_id, run, shell
from support.daemon import is_running, running, wait_until
from support.holding import HoldingDaemon, holding
from support.host import (
    CREATE,
    DELETE,
    DUMP_STACKS,
    EXECUTE,
    GET_PROPERTIES,
    HEADER,
    MODIFY,
    NEGOTIATE,
    NULL_ID,
    SIGNAL,
    START,
    WAIT,
    ZERO_GUID,
    Connection,
    code,
)
from support.leaks import Snapshot
from support.streams import Output

COUNTING = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done"
COUNTED = "".join(f"line {n}\n" for n in range(2000)).encode()


@pytest.fixture
def vm(runtime: str) -> Iterator[HoldingDaemon]:
    with holding(runtime=runtime) as daemon:
        yield daemon


@pytest.fixture
def bridge(vm: HoldingDaemon) -> Iterator[Connection]:
    """The one connection: nobody else may be accepted, and nothing is left behind."""
    connection = vm.connect()
    run(connection, "/bin/true")
    # The file of devices comes with the first one and stays.
    ramdisk = {"MountPath": f"{vm.folder}/first", "SizeMiB": 1}
    for verb in ("Add", "Remove"):
        connection.modify(NULL_ID, "example.com/Ramdisk", verb, ramdisk)
    before = Snapshot.take(vm)
    yield connection
    assert connection.is_open
    run(connection, "/bin/true")
    assert_only_these(before, vm)
    connection.close()


def assert_only_these(before: Snapshot, vm: HoldingDaemon) -> None:
    deadline = time.monotonic() + 12
    while lines := left(before, vm):
        assert time.monotonic() < deadline, "\n".join(lines)
        time.sleep(0.1)


def left(before: Snapshot, vm: HoldingDaemon) -> list[str]:
    after = Snapshot.take(vm)
    return [line for line in before.differences(after) if not line.startswith("daemon_")]


def body(container_id: str, **fields: Any) -> dict[str, Any]:
    return {"ContainerId": container_id, "ActivityId": ZERO_GUID, **fields}


def config(bridge: Connection, container_id: str, *args: str) -> str:
    return bridge.host.container_config(container_id, specs.container(*args))


def listening(bridge: Connection, name: str = "Out") -> tuple[dict[str, int], Output]:
    port, listener = bridge.host.next_port()
    output = Output(listener)
    bridge.host.streams.append(output)
    return {f"Std{name}": port}, output


def start_fields(bridge: Connection, process: Any = None) -> tuple[dict[str, Any], Output]:
    ports, output = listening(bridge)
    asked: dict[str, Any] = {"CreateStdOutPipe": True}
    if process is not None:
        asked["OciProcess"] = process
    settings = {"ProcessParameters": json.dumps(asked), "VsockStdioRelaySettings": ports}
    return {"Settings": settings}, output


def finish(bridge: Connection, container_id: str, pid: int, exit_code: int) -> None:
    assert bridge.wait(container_id, pid) == exit_code
    bridge.wait_for_notification(container_id)
    assert [note["ContainerId"] for note in bridge.notifications].count(container_id) == 1
    bridge.delete(container_id)


def test_a_request_of_which_half_was_read_is_served_by_the_next_daemon(
    vm: HoldingDaemon, bridge: Connection
) -> None:
    container_id = new_id()
    text = json.dumps(body(container_id, ContainerConfig=config(bridge, container_id, "/bin/true"))).encode()
    frame = HEADER.pack(CREATE, HEADER.size + len(text), 5000) + text
    bridge.expect(5000, CREATE)
    bridge.send_bytes(frame[: len(frame) // 2])
    time.sleep(0.05)
    vm.kill_daemon()
    bridge.send_bytes(frame[len(frame) // 2 :])
    assert code(bridge.answer(5000)) == "S_OK"
    finish(bridge, container_id, bridge.execute(container_id).pid, 0)


def test_answers_of_which_half_was_written_arrive_whole(vm: HoldingDaemon, bridge: Connection) -> None:
    asked = [bridge.send(DUMP_STACKS, body(NULL_ID)) for _ in range(150)]
    time.sleep(0.5)  # the socket is full by now, and nobody reads
    vm.kill_daemon()
    for id_ in asked:
        assert "thread" in bridge.answer(id_)["GuestStacks"]


@pytest.mark.parametrize("place", ["create-decided", "create-made", "answer-create"])
def test_a_create_is_answered_with_success(vm: HoldingDaemon, bridge: Connection, place: str) -> None:
    container_id = new_id()
    vm.hold(place)
    fields = {"ContainerConfig": config(bridge, container_id, *shell(f"{COUNTING}; exit 3"))}
    creating = bridge.send(CREATE, body(container_id, **fields))
    vm.kill_at(place)
    assert code(bridge.answer(creating)) == "S_OK"
    assert code(bridge.ask(CREATE, body(container_id, **fields))) == "SYSTEM_ALREADY_EXISTS"
    init = bridge.execute(container_id, stdout=True)
    assert init.stdout.read_all() == COUNTED
    finish(bridge, container_id, init.pid, 3)


def test_a_create_whose_runtime_still_runs_is_undone_and_repeated(runtime: str, tmp_path: Path) -> None:
    from support import machine

    flag, started = tmp_path / "slow", tmp_path / "started"
    program = tmp_path / runtime
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *" create "*) [ -e {flag} ] && {{ rm {flag}; touch {started}; sleep 1; }};;'
        f' esac\nexec {machine.runtime_path(runtime)} "$@"\n'
    )
    program.chmod(0o755)
    with holding(runtime=str(program)) as vm:
        bridge = vm.connect()
        run(bridge, "/bin/true")
        before = Snapshot.take(vm)
        container_id = new_id()
        flag.touch()
        creating = bridge.send(
            CREATE, body(container_id, ContainerConfig=config(bridge, container_id, *shell("exit 4")))
        )
        wait_until(started.exists)
        vm.kill_daemon()
        assert code(bridge.answer(creating)) == "S_OK"
        finish(bridge, container_id, bridge.execute(container_id).pid, 4)
        run(bridge, "/bin/true")
        assert_only_these(before, vm)
        bridge.close()


@pytest.mark.parametrize("place", ["connected", "start-made", "answer-execute"])
def test_a_start_happens_once_and_no_byte_is_lost(vm: HoldingDaemon, bridge: Connection, place: str) -> None:
    container_id = new_id()
    bridge.create(container_id, specs.container(*shell(f"{COUNTING}; exit 5")))
    fields, output = start_fields(bridge)
    vm.hold(place)
    starting = bridge.send(EXECUTE, body(container_id, **fields))
    vm.kill_at(place)
    answer = bridge.answer(starting)
    assert code(answer) == "S_OK"
    assert output.read_all() == COUNTED
    finish(bridge, container_id, answer["ProcessId"], 5)


@pytest.mark.parametrize("place", ["connected", "exec-made", "answer-execute"])
def test_an_exec_happens_once_and_no_byte_is_lost(vm: HoldingDaemon, bridge: Connection, place: str) -> None:
    with created(bridge, "/bin/sleep", "600") as container:
        container.init()
        script = f"echo x >> /tmp/ran; {COUNTING}; exit 6"
        fields, output = start_fields(bridge, specs.process(*shell(script)))
        vm.hold(place)
        starting = bridge.send(EXECUTE, body(container.id, **fields))
        vm.kill_at(place)
        answer = bridge.answer(starting)
        assert code(answer) == "S_OK"
        assert output.read_all() == COUNTED
        assert bridge.wait(container.id, answer["ProcessId"]) == 6
        probe = container.exec("/bin/cat", "/tmp/ran", stdout=True)
        assert (probe.wait(), probe.stdout.read_all()) == (0, b"x\n")


@pytest.mark.parametrize("place", ["spawned", "answer-execute"])
def test_a_process_in_the_vm_is_started_once(vm: HoldingDaemon, bridge: Connection, place: str) -> None:
    ran = vm.folder / "ran"
    ports, output = listening(bridge)
    asked = {
        "CommandArgs": ["sh", "-c", f"echo x >> {ran}; echo out; read x; exit 7"],
        "Environment": {"PATH": "/bin:/usr/bin"},
        "CreateStdOutPipe": True,
    }
    settings = {"ProcessParameters": json.dumps(asked), "VsockStdioRelaySettings": ports}
    vm.hold(place)
    starting = bridge.send(EXECUTE, body(NULL_ID, Settings=settings))
    vm.kill_at(place)
    answer = bridge.answer(starting)
    assert code(answer) == "S_OK"
    assert bridge.wait(NULL_ID, answer["ProcessId"]) == 7
    assert output.read_all() == b"out\n"
    assert ran.read_text() == "x\n"


@pytest.mark.parametrize("place", ["signalled", "answer-signal"])
def test_a_signal_is_sent_once(vm: HoldingDaemon, bridge: Connection, place: str) -> None:
    script = "trap 'echo got' USR1; echo ready; while [ ! -e /tmp/end ]; do sleep 0.05; done"
    with created(bridge, *shell(f"{script}; exit 9")) as container:
        init = container.init(stdout=True)
        init.stdout.read_until(b"ready\n")
        vm.hold(place)
        asked = bridge.send(SIGNAL, body(container.id, ProcessId=init.pid, Options={"Signal": 10}))
        vm.kill_at(place)
        assert code(bridge.answer(asked)) == "S_OK"
        assert container.exec("/bin/touch", "/tmp/end").wait() == 0
        assert bridge.wait(container.id, init.pid) == 9
        assert init.stdout.read_all().count(b"got") == 1


def test_how_a_container_was_ended_outlives_the_daemon(vm: HoldingDaemon, bridge: Connection) -> None:
    script = "trap 'touch /tmp/asked' TERM; echo ready; while [ ! -e /tmp/end ]; do sleep 0.05; done"
    with created(bridge, *shell(script)) as container:
        init = container.init(stdout=True)
        init.stdout.read_until(b"ready\n")
        bridge.signal(container.id, init.pid, 15)
        vm.kill_daemon()
        assert container.exec("/bin/touch", "/tmp/end").wait() == 0
        assert bridge.wait_for_notification(container.id)["Type"] == "GracefulExit"


@pytest.mark.parametrize("place", ["delete-made", "answer-delete"])
def test_a_delete_is_finished_and_answered(vm: HoldingDaemon, bridge: Connection, place: str) -> None:
    container_id = new_id()
    bridge.create(container_id, specs.container("/bin/true"))
    assert bridge.execute(container_id).wait() == 0
    bridge.wait_for_notification(container_id)
    vm.hold(place)
    deleting = bridge.send(DELETE, body(container_id))
    vm.kill_at(place)
    assert code(bridge.answer(deleting)) == "S_OK"
    assert code(bridge.ask(DELETE, body(container_id))) == "SYSTEM_NOT_FOUND"


@pytest.mark.parametrize("place", ["change-begun", "mounted", "change-committed", "answer-modify"])
def test_a_device_is_added_once(vm: HoldingDaemon, bridge: Connection, place: str) -> None:
    path = str(vm.folder / "disk")
    inner = {
        "RequestType": "Add",
        "ResourceType": "example.com/Ramdisk",
        "Settings": {"MountPath": path, "SizeMiB": 4},
    }
    vm.hold(place)
    adding = bridge.send(MODIFY, body(NULL_ID, Request=inner))
    vm.kill_at(place)
    assert code(bridge.answer(adding)) == "S_OK"
    assert mounted(path) == 1
    assert code(bridge.ask(MODIFY, body(NULL_ID, Request=inner))) == "E_FAIL", "it is there"
    bridge.modify(NULL_ID, "example.com/Ramdisk", "Remove", {"MountPath": path})
    assert mounted(path) == 0


def mounted(path: str) -> int:
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()].count(path)


def test_waits_and_exits_are_told_once_whatever_happens(vm: HoldingDaemon, bridge: Connection) -> None:
    with created(bridge, *shell("read x; exit 11")) as container:
        init = container.init(stdin=True)
        exec_ = container.exec(*shell("read x; exit 12"), stdin=True)
        waits = [bridge.send_wait(container.id, pid) for pid in (init.pid, exec_.pid, exec_.pid)]
        vm.hold("answer-wait")
        exec_.stdin.write(b"\n")
        vm.kill_at("answer-wait")
        assert [bridge.answer(wait)["ExitCode"] for wait in waits[1:]] == [12, 12]
        vm.kill_daemon()
        init.stdin.write(b"\n")
        wait_until(lambda: not is_running(init.pid))
        assert bridge.answer(waits[0])["ExitCode"] == 11
        finish(bridge, container.id, init.pid, 11)
        for _ in range(2):
            vm.kill_daemon()
            bridge.properties(NULL_ID, "uvmd.ps")
        assert len(bridge.notifications) == 2, "and the one of the first container"


def test_what_was_negotiated_holds_with_events(runtime: str) -> None:
    with holding(runtime=runtime) as vm:
        bridge = vm.connect(negotiate=False)
        bridge.negotiate(UvmdEvents=True)
        vm.kill_daemon()
        assert code(bridge.ask(START, body("x"))) == "S_OK"
        assert code(bridge.ask(NEGOTIATE, body("", MinimumVersion=4, MaximumVersion=4))) == "E_NOTIMPL"
        with created(bridge, "/bin/true") as container:
            bridge.wait_for_event(container.id, "Created")
            assert container.init().wait() == 0
        bridge.close()


def test_a_negotiation_that_was_not_answered_is_answered(runtime: str) -> None:
    with holding(runtime=runtime) as vm:
        bridge = vm.connect(negotiate=False)
        vm.hold("answer-negotiate")
        asked = bridge.send(NEGOTIATE, body("", MinimumVersion=4, MaximumVersion=4))
        vm.kill_at("answer-negotiate")
        assert code(bridge.answer(asked)) == "S_OK"
        assert code(bridge.ask(START, body("x"))) == "S_OK"
        bridge.close()


def test_a_request_that_comes_while_no_daemon_is_there_is_served(
    vm: HoldingDaemon, bridge: Connection
) -> None:
    vm.kill_daemon()
    asked = [bridge.send(GET_PROPERTIES, body("nobody", Query="")) for _ in range(20)]
    assert {code(bridge.answer(id_)) for id_ in asked} == {"SYSTEM_NOT_FOUND"}


def test_output_flows_on_with_a_reader_that_was_slow(vm: HoldingDaemon, bridge: Connection) -> None:
    script = "head -c 3000000 /dev/zero; echo; echo end; exit 13"
    with created(bridge, *shell(script)) as container:
        reading = threading.Event()
        init = container.init(stdout=True, start=reading)
        time.sleep(0.2)  # pipes and sockets are full: the relay is in the middle
        vm.kill_daemon()
        reading.set()
        assert len(init.stdout.read_all()) == 3_000_005
        assert bridge.wait(container.id, init.pid) == 13


def test_in_sequential_mode_requests_keep_their_order(runtime: str) -> None:
    with holding(runtime=runtime, options={"vm-sequential": "always"}) as vm:
        bridge = vm.connect()
        container_id = new_id()
        vm.hold("create-made")
        creating = bridge.send(
            CREATE, body(container_id, ContainerConfig=config(bridge, container_id, *shell("exit 2")))
        )
        fields, _ = start_fields(bridge)
        starting = bridge.send(EXECUTE, body(container_id, **fields))
        vm.kill_at("create-made")
        assert code(bridge.answer(creating)) == "S_OK"
        finish(bridge, container_id, bridge.answer(starting)["ProcessId"], 2)
        bridge.close()


def test_a_wait_outlives_daemon_and_connection_together(vm: HoldingDaemon) -> None:
    bridge = vm.connect()
    with created(bridge, *shell("read x; exit 21")) as container:
        init = container.init(stdin=True)
        assert init.stdin.connection is not None
        waiting = bridge.send_wait(container.id, init.pid)
        bridge.properties(container.id)
        vm.kill_daemon()
        bridge.close()
        init.stdin.write(b"\n")
        fresh = vm.connect(negotiate=False)
        fresh.continue_ids(waiting + 100)
        fresh.expect(waiting, WAIT)
        fresh.negotiate()
        assert fresh.answer(waiting)["ExitCode"] == 21
        fresh.wait_for_notification(container.id)
        vm.kill_daemon()
        fresh.delete(container.id)
        assert len(fresh.notifications) == 1
        fresh.close()


def test_an_exit_that_no_host_was_there_to_hear_of_is_told_by_a_later_daemon(vm: HoldingDaemon) -> None:
    bridge = vm.connect()
    with created(bridge, *shell("read x; exit 22")) as container:
        init = container.init(stdin=True)
        assert init.stdin.connection is not None
        vm.host.refuse()
        bridge.close()
        init.stdin.write(b"\n")
        wait_until(lambda: not is_running(init.pid))
        for _ in range(2):  # the first of them has it in its queue, and dies with that
            time.sleep(0.5)
            vm.kill_daemon()
        vm.host.listen()
        fresh = vm.connect()
        fresh.wait_for_notification(container.id)
        assert fresh.wait(container.id, init.pid) == 22
        fresh.delete(container.id)
        assert len(fresh.notifications) == 1
        fresh.close()


def test_a_bridge_over_pipes_outlives_the_daemon_as_well() -> None:
    with running(stdio=True) as daemon:
        bridge = daemon.connect()
        with created(bridge, *shell("exit 23")) as container:
            daemon.kill_daemon()
            assert container.init().wait() == 23
            bridge.wait_for_notification(container.id)
            bridge.delete(container.id)
        bridge.close()
        assert daemon.wait() == 0


def test_a_terminal_outlives_the_daemon(vm: HoldingDaemon, bridge: Connection) -> None:
    with created(bridge, *shell("read x; echo got $x; exit 24"), terminal=True) as container:
        init = container.init(stdin=True, stdout=True)
        vm.kill_daemon()
        init.stdin.write(b"word\n")
        assert bridge.wait(container.id, init.pid) == 24
        assert b"got word" in init.stdout.read_all()


def test_waits_on_one_process_are_each_answered_once_by_whichever_daemon(
    vm: HoldingDaemon, bridge: Connection
) -> None:
    with created(bridge, *shell("read line")) as container:
        init = container.init(stdin=True)
        process = container.exec(*shell("read line; exit 4"), stdin=True)
        waits = [bridge.send_wait(container.id, process.pid) for _ in range(3)]
        # Far more than the socket holds, and nobody takes it: the codes wait behind it.
        dumps = [bridge.send(DUMP_STACKS, {"ContainerId": "", "ActivityId": ZERO_GUID}) for _ in range(120)]
        time.sleep(1)
        process.stdin.write(b"\n")
        wait_until(lambda: not is_running(process.pid), what="the process has ended")
        time.sleep(0.3)
        vm.kill_daemon()
        wait_until(lambda: vm.log_text().count('"serving"') == 2, 20, "the next daemon serves")
        time.sleep(0.3)
        # An answer to what was answered, or not asked, kills a real bridge, and this one.
        assert [bridge.answer(wait)["ExitCode"] for wait in waits] == [4, 4, 4]
        assert {code(bridge.answer(dump)) for dump in dumps} == {"S_OK"}
        init.stdin.write(b"\n")
        assert init.wait() == 0
