"""The host's own orders of messages (spec bridge.md 11.3) with real containers."""

from __future__ import annotations

from pathlib import Path

from support import specs
from support.containers import created, new_id, run, shell
from support.daemon import Daemon, children, is_running, wait_until
from support.host import (
    CREATE,
    DELETE,
    EXECUTE,
    NULL_ID,
    SHUTDOWN_FORCED,
    SHUTDOWN_GRACEFUL,
    WAIT,
    ZERO_GUID,
    Connection,
    code,
)
from support.leaks import Snapshot, assert_nothing_left
from support.matrix import row


def base(container_id: str, **fields: object) -> dict[str, object]:
    return {"ContainerId": container_id, "ActivityId": ZERO_GUID, **fields}


def test_a_container_runs_from_create_to_delete(daemon: Daemon, bridge: Connection) -> None:
    run(bridge, "/bin/true")
    before = Snapshot.take(daemon)
    ran = run(bridge, *shell("read line; echo out $line; echo err $line >&2; exit 7"), stdin=b"hello\n")
    assert (ran.exit_code, ran.stdout, ran.stderr) == (7, b"out hello\n", b"err hello\n")
    assert_nothing_left(daemon, before)


@row("life.first-generation", "shutdown.stopped")
def test_the_order_of_a_first_generation_host(daemon: Daemon, bridge: Connection) -> None:
    container_id = new_id()
    bridge.create(container_id, specs.container(*shell("echo up; sleep 60")))
    assert not bridge.notifications
    bridge.start(container_id)
    init = bridge.execute(container_id, stdout=True, stderr=True)
    waiting = bridge.send_wait(container_id, init.pid)
    init.stdout.read_until(b"up")
    exec_ = bridge.execute(container_id, specs.process(*shell("echo exec; exit 3")), stdout=True)
    assert exec_.wait() == 3
    assert exec_.stdout.read_all() == b"exec\n"
    bridge.signal(container_id, init.pid, 9)
    assert bridge.answer(waiting)["ExitCode"] == 137
    # Init is gone, so both are answered with "already stopped", which the host ignores.
    assert code(bridge.ask(SHUTDOWN_GRACEFUL, base(container_id))) == "SYSTEM_ALREADY_STOPPED"
    assert code(bridge.ask(SHUTDOWN_FORCED, base(container_id))) == "SYSTEM_ALREADY_STOPPED"
    note = bridge.wait_for_notification(container_id)
    assert note["Type"] == "ForcedExit"
    assert (note["Operation"], note["Result"]) == ("None", 0)
    bridge.delete(container_id)
    assert code(bridge.ask(DELETE, base(container_id))) == "SYSTEM_NOT_FOUND"


@row("life.second-generation")
def test_the_order_of_a_second_generation_host(daemon: Daemon, bridge: Connection) -> None:
    pod, container_id = new_id(), new_id()
    bundle = daemon.bundles / "pods" / pod / container_id
    bridge.create(
        container_id,
        specs.container("/bin/true"),
        OciBundlePath=str(bundle),
        ScratchDirPath=str(daemon.bundles / "mounts" / "scratch" / pod / container_id),
    )
    bridge.start(container_id)
    init = bridge.execute(container_id)
    assert init.wait() == 0
    bridge.delete(container_id)  # no Shutdown after the exit
    assert not bundle.exists()


def test_a_created_container_that_never_started_is_deleted(daemon: Daemon, bridge: Connection) -> None:
    run(bridge, "/bin/true")
    before = Snapshot.take(daemon)
    container_id = new_id()
    bridge.create(container_id, specs.container("/bin/true"))
    bridge.start(container_id)
    bridge.delete(container_id)
    assert_nothing_left(daemon, before)


def test_the_pid_is_that_of_the_root_namespace(daemon: Daemon, bridge: Connection) -> None:
    with created(bridge, "/bin/sleep", "60") as container:
        init = container.init()
        assert Path(f"/proc/{init.pid}/exe").exists()
        # The runtime answers before its init has become the program.
        wait_until(lambda: "sleep" in Path(f"/proc/{init.pid}/comm").read_text(), what="init is the program")
        assert init.pid in children(daemon.monitor_pid)


@row("notification.once", "wait.many")
def test_every_waiter_gets_the_code_and_one_notification_comes(bridge: Connection) -> None:
    with created(bridge, *shell("sleep 0.2; exit 5")) as container:
        init = container.init()
        waits = [bridge.send_wait(container.id, init.pid) for _ in range(50)]
        assert {bridge.answer(wait)["ExitCode"] for wait in waits} == {5}
        bridge.wait_for_notification(container.id)
        # Init stays addressable as long as its container.
        assert init.wait() == 5
        assert bridge.wait(container.id, init.pid, timeout_ms=0) == 5
        assert len([note for note in bridge.notifications if note["ContainerId"] == container.id]) == 1


@row("notification.unexpected")
def test_the_notification_carries_the_activity_of_create(bridge: Connection) -> None:
    activity = "12345678-9abc-def0-1234-56789abcdef0"
    container_id = new_id()
    config = bridge.host.container_config(container_id, specs.container("/bin/true"))
    body = {"ContainerId": container_id, "ActivityId": activity, "ContainerConfig": config}
    answer = bridge.ask(CREATE, body)
    assert (code(answer), answer["SelectedProtocolVersion"], answer["ActivityId"]) == ("S_OK", 0, activity)
    bridge.execute(container_id)
    note = bridge.wait_for_notification(container_id)  # nobody waits for init here
    assert note == {
        "ContainerId": container_id,
        "ActivityId": activity,
        "Type": "UnexpectedExit",
        "Operation": "None",
        "Result": 0,
    }
    bridge.delete(container_id)


@row("notification.graceful")
def test_a_graceful_shutdown_is_reported_as_such(bridge: Connection) -> None:
    script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    with created(bridge, *shell(script)) as container:
        init = container.init(stdout=True)
        init.stdout.read_until(b"ready")
        waiting = bridge.send_wait(container.id, init.pid)
        assert code(bridge.ask(SHUTDOWN_GRACEFUL, base(container.id))) == "S_OK"
        assert bridge.answer(waiting)["ExitCode"] == 3
        assert bridge.wait_for_notification(container.id)["Type"] == "GracefulExit"


@row("notification.forced")
def test_a_forced_shutdown_is_reported_as_such(bridge: Connection) -> None:
    with created(bridge, "/bin/sleep", "60") as container:
        init = container.init()
        assert code(bridge.ask(SHUTDOWN_FORCED, base(container.id))) == "S_OK"
        assert init.wait() == 137
        assert bridge.wait_for_notification(container.id)["Type"] == "ForcedExit"


def test_other_signals_do_not_change_the_exit_type(bridge: Connection) -> None:
    script = "trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done"
    with created(bridge, *shell(script)) as container:
        init = container.init(stdout=True)
        init.stdout.read_until(b"ready")
        bridge.signal(container.id, init.pid, 10)
        assert init.wait() == 9
        assert bridge.wait_for_notification(container.id)["Type"] == "UnexpectedExit"


def test_the_last_terminating_signal_decides_the_exit_type(bridge: Connection) -> None:
    with created(bridge, *shell("trap '' TERM; echo ready; sleep 60")) as container:
        init = container.init(stdout=True)
        init.stdout.read_until(b"ready")
        bridge.signal(container.id, init.pid, 15)
        bridge.signal(container.id, init.pid)  # no options: SIGKILL
        assert init.wait() == 137
        assert bridge.wait_for_notification(container.id)["Type"] == "ForcedExit"


def test_execs_die_with_their_container(daemon: Daemon, bridge: Connection) -> None:
    with created(bridge, "/bin/sleep", "60") as container:
        init = container.init()
        exec_ = container.exec("/bin/sleep", "60")
        container.kill()
        assert init.wait() == 137
        assert exec_.wait() == 137
        assert not is_running(exec_.pid)


def test_without_a_pid_namespace_the_rest_is_killed_with_init(bridge: Connection) -> None:
    with created(
        bridge, *shell("sleep 300 & echo $!; exit 4"), namespaces=("ipc", "mount", "uts")
    ) as container:
        init = container.init(stdout=True)
        # The background process holds the pipe, so the end of file shows that it was killed.
        assert init.wait() == 4
        left_behind = int(init.stdout.read_all())
        wait_until(lambda: not is_running(left_behind), what="the end of what closed its output")


def test_an_orphan_of_an_exec_is_reaped(bridge: Connection) -> None:
    namespaces = ("ipc", "mount", "uts")
    with created(bridge, "/bin/sleep", "60", namespaces=namespaces) as container:
        container.init()
        exec_ = container.exec(*shell("sleep 0.2 >/dev/null 2>&1 & echo $!"), stdout=True)
        assert exec_.wait() == 0
        orphan = int(exec_.stdout.read_all())
        wait_until(lambda: not Path(f"/proc/{orphan}").exists(), what="the orphan is reaped")


@row("wait.timeout")
def test_a_wait_may_time_out_and_be_repeated(bridge: Connection) -> None:
    with created(bridge, *shell("sleep 0.6; exit 2")) as container:
        init = container.init()
        for timeout_ms in (0, 1, 50):
            answer = bridge.ask(WAIT, base(container.id, ProcessId=init.pid, TimeoutInMs=timeout_ms))
            assert code(answer) == "TIMEOUT"
            assert "ExitCode" not in answer
        assert init.wait() == 2


@row("wait.exec-forgotten")
def test_an_exec_is_forgotten_after_its_code_was_delivered(bridge: Connection) -> None:
    with created(bridge, "/bin/sleep", "60") as container:
        container.init()
        exec_ = container.exec("/bin/true")
        assert exec_.wait() == 0
        assert code(bridge.ask(WAIT, base(container.id, ProcessId=exec_.pid, TimeoutInMs=50))) == "NOT_FOUND"


def test_a_signalled_process_reports_128_and_the_signal(bridge: Connection) -> None:
    with created(bridge, "/bin/sleep", "60") as container:
        container.init()
        for signal in (1, 2, 15, 9):
            exec_ = container.exec("/bin/sleep", "60")
            bridge.signal(container.id, exec_.pid, signal)
            assert exec_.wait() == 128 + signal


def test_two_containers_do_not_hear_of_each_other(bridge: Connection) -> None:
    with created(bridge, "/bin/sleep", "60") as one, created(bridge, "/bin/sleep", "60") as other:
        first, second = one.init(), other.init()
        assert code(bridge.ask(WAIT, base(other.id, ProcessId=first.pid, TimeoutInMs=50))) == "NOT_FOUND"
        one.kill()
        assert first.wait() == 137
        assert code(bridge.ask(WAIT, base(other.id, ProcessId=second.pid, TimeoutInMs=50))) == "TIMEOUT"


def test_lives_may_overlap(bridge: Connection) -> None:
    ids = [new_id() for _ in range(12)]
    spec = specs.container("/bin/true")
    configs = [base(id_, ContainerConfig=bridge.host.container_config(id_, spec)) for id_ in ids]
    creates = [bridge.send(CREATE, config) for config in configs]
    assert {code(bridge.answer(create)) for create in creates} == {"S_OK"}
    body = {"ProcessParameters": "{}", "VsockStdioRelaySettings": {}}
    started = [bridge.send(EXECUTE, base(id_, Settings=body)) for id_ in ids]
    pids = [bridge.answer(request)["ProcessId"] for request in started]
    waits = [bridge.send_wait(id_, pid) for id_, pid in zip(ids, pids, strict=True)]
    assert {bridge.answer(wait)["ExitCode"] for wait in waits} == {0}
    deletes = [bridge.send(DELETE, base(id_)) for id_ in ids]
    assert {code(bridge.answer(delete)) for delete in deletes} == {"S_OK"}


def test_the_null_id_names_no_container(bridge: Connection) -> None:
    config = bridge.host.container_config(NULL_ID, specs.container("/bin/true"))
    assert code(bridge.ask(CREATE, base(NULL_ID, ContainerConfig=config))) != "S_OK"
