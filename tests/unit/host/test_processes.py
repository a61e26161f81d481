"""Starting init, execs and external processes, and what a failure of each leaves."""

from __future__ import annotations

import os
from typing import Any

import pytest

from unit.host.fakes import Bench, Finished, container_spec
from uvmd.api.policy import Decision
from uvmd.errors import (
    ContainerNotFound,
    ContainerStopped,
    Failed,
    InvalidMessage,
    InvalidState,
    PolicyDenied,
    Refused,
    RuntimeFailed,
)
from uvmd.host.containers import State
from uvmd.host.operations import exec, external, start
from uvmd.host.processes import exit_code_of
from uvmd.host.requests import NULL_ID, ExecuteRequest

PROCESS = {"args": ["/bin/ls"], "cwd": "/", "env": ["B=2"], "user": {"uid": 5, "gid": 6}}


def run_exec(bench: Bench, process: dict[str, Any] | None = None, **request: Any) -> int:
    return exec.execute(bench.ctx, "c1", ExecuteRequest(oci_process=process or dict(PROCESS), **request))


def run_external(bench: Bench, **request: Any) -> int:
    return external.execute(bench.ctx, ExecuteRequest(in_vm=True, **request))


def executed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect the process documents that the runtime is given."""
    import json

    documents: list[Any] = []
    run = bench.monitor.run

    def reading(argv: Any, **options: Any) -> Any:
        if argv[5] == "exec":
            path = argv[argv.index("--process") + 1]
            assert os.stat(path).st_mode & 0o077 == 0
            with open(path) as file:
                documents.append(json.load(file))
        return run(argv, **options)

    monkeypatch.setattr(bench.monitor, "run", reading)
    return documents


# Init


def test_start_connects_the_streams_before_the_runtime_starts(bench: Bench) -> None:
    bench.create()
    pid = bench.start(stdin=1, stdout=2, stderr=3)
    assert bench.monitor.names()[-2:] == ["connect", "runtime start"]
    assert bench.monitor.arguments("connect") == [(1, (1, 2, 3), True, False, False)]
    assert pid == bench.monitor.slots[1].pid
    assert bench.ctx.registry.get("c1").state is State.RUNNING


def test_start_of_an_unknown_container_says_so(bench: Bench) -> None:
    with pytest.raises(ContainerNotFound):
        bench.start("nobody")


def test_a_second_start_is_refused_and_touches_no_stream(bench: Bench) -> None:
    bench.running()
    before = list(bench.monitor.calls)
    with pytest.raises(InvalidState):
        bench.start()
    assert bench.monitor.calls == before


def test_streams_that_cannot_be_connected_leave_the_container_startable(bench: Bench) -> None:
    bench.create()
    bench.monitor.failures["connect"] = ConnectionRefusedError(111, "Connection refused")
    with bench.nothing_changes(), pytest.raises(Failed, match="Connection refused"):
        bench.start(stdout=9)
    bench.monitor.failures.clear()
    assert bench.start(stdout=9)


def test_a_runtime_that_cannot_start_init_leaves_no_running_init(bench: Bench) -> None:
    bench.create()
    bench.monitor.outcomes["runtime start"] = (Finished(1), '{"level":"error","msg":"boom"}\n')
    with pytest.raises(RuntimeFailed, match="boom"):
        bench.start()
    assert bench.monitor.arguments("kill") == [(1, 9)]
    assert bench.ctx.registry.get("c1").state is State.TERMINATED
    assert [event.container_id for event in bench.told] == ["c1"]


def test_init_that_ends_during_its_start_does_not_come_back_to_life(bench: Bench) -> None:
    bench.create()
    run = bench.monitor.run

    def quick(argv: Any, **options: Any) -> Any:
        finished = run(argv, **options)
        if argv[5] == "start":
            bench.monitor.end(1, 0)
        return finished

    bench.monitor.run = quick  # type: ignore[method-assign]
    pid = bench.start()
    assert bench.ctx.registry.get("c1").state is State.TERMINATED
    assert bench.wait("c1", pid) == [0]


def test_init_that_is_gone_cannot_be_started(bench: Bench) -> None:
    bench.create()
    bench.monitor.end(1, -9, drain=False)
    with pytest.raises(ContainerStopped):
        bench.start()


def test_a_tee_log_is_opened_at_start_and_handed_over(bench: Bench) -> None:
    spec = container_spec(annotations={"io.microsoft.container.lcow.tee-log-path": "a/b.log"})
    bench.create(spec=spec)
    assert not (bench.bundle("c1") / "logs" / "a").exists()
    bench.start(stdout=2)
    assert bench.monitor.arguments("connect")[0][3] is True
    path = bench.bundle("c1") / "logs" / "a" / "b.log"
    assert path.stat().st_mode & 0o777 == 0o644


# Exec


def test_an_exec_dials_first_and_answers_its_pid(bench: Bench) -> None:
    bench.running()
    pid = run_exec(bench, stdout=7)
    assert bench.monitor.names()[-3:] == ["open_slot", "connect", "runtime exec"]
    assert bench.ctx.registry.process("c1", pid).args == ("/bin/ls",)
    assert os.listdir(bench.run_dir / "containers" / "c1") == []


def test_an_exec_without_streams_opens_no_slot(bench: Bench) -> None:
    bench.running()
    before = len(bench.monitor.calls)
    run_exec(bench)
    assert bench.monitor.names()[before:] == ["runtime exec"]


def test_an_exec_has_the_container_s_limits_whatever_it_asks_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = executed(bench, monkeypatch)
    limits = [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}]
    bench.running(process={"args": ["x"], "cwd": "/", "rlimits": limits})
    run_exec(bench, {**PROCESS, "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]})
    assert documents[0]["rlimits"] == limits


def test_an_exec_without_a_user_string_inherits_that_of_the_container(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = executed(bench, monkeypatch)
    etc = bench.bundle("c1") / "rootfs" / "etc"
    etc.mkdir(parents=True)
    (etc / "passwd").write_text("bob:x:7:8::/:\n")
    bench.running(process={"args": ["x"], "cwd": "/", "user": {"username": "bob", "umask": 7}})
    run_exec(bench)
    assert documents[0]["user"] == {"uid": 7, "gid": 8, "umask": 7}
    run_exec(bench, {**PROCESS, "user": {"username": "bob:4"}})
    assert documents[1]["user"] == {"uid": 7, "gid": 4}


def test_the_policy_is_asked_about_the_user_that_an_exec_runs_as(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = executed(bench, monkeypatch)
    etc = bench.bundle("c1") / "rootfs" / "etc"
    etc.mkdir(parents=True)
    (etc / "passwd").write_text("root:x:0:0::/:\nbob:x:5:6::/:\n")
    (etc / "group").write_text("root:x:0:\nbobs:x:6:\n")
    bench.running(process={"args": ["x"], "cwd": "/", "user": {"username": "root", "umask": 7}})
    bench.gate.strict = bench.gate.wants_user_info = True
    run_exec(bench)
    _, asked = bench.gate.asked[-1]
    assert (asked["user"], asked["umask"]) == ({"id": "0", "name": "root"}, "0007")
    assert documents[0]["user"] == {"uid": 0, "gid": 0, "umask": 7}
    # The names are the image's now: who is asked about is who runs.
    (etc / "passwd").write_text("root:x:9:0::/:\n")
    run_exec(bench)
    assert (bench.gate.asked[-1][1]["user"]["id"], documents[1]["user"]["uid"]) == ("9", 9)
    # One that names its own is asked about as before.
    run_exec(bench, {**PROCESS, "user": {"username": "5:6"}})
    assert (bench.gate.asked[-1][1]["user"]["id"], documents[2]["user"]["uid"]) == ("5", 5)


def test_an_exec_keeps_its_own_user_where_nobody_has_a_string(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = executed(bench, monkeypatch)
    bench.running()
    run_exec(bench)
    assert documents[0]["user"] == {"uid": 5, "gid": 6}


def test_an_unknown_user_fails_before_anything_is_made(bench: Bench) -> None:
    bench.running()
    with bench.nothing_changes(), pytest.raises(Failed, match="nobody"):
        run_exec(bench, {**PROCESS, "user": {"username": "nobody"}})


def test_the_policy_narrows_an_exec(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = executed(bench, monkeypatch)
    bench.running()
    bench.gate.answers["exec_in_container"] = Decision(True, env=[], capabilities={"bounding": []})
    run_exec(bench)
    assert documents[0]["env"] == []
    assert documents[0]["capabilities"] == {"bounding": []}


def test_a_denied_exec_leaves_nothing(bench: Bench) -> None:
    bench.running()
    bench.gate.denied.add("exec_in_container")
    with (
        bench.nothing_changes(),
        pytest.raises(PolicyDenied, match="exec in container denied due to policy: no"),
    ):
        run_exec(bench)


@pytest.mark.parametrize("who", ["container", "exec"])
def test_denied_stdio_refuses_a_terminal_and_discards_other_streams(bench: Bench, who: str) -> None:
    no_stdio = Decision(True, stdio=False)
    if who == "container":
        bench.gate.answers["create_container"] = no_stdio
    bench.running()
    if who == "exec":
        bench.gate.answers["exec_in_container"] = no_stdio
    with bench.nothing_changes(), pytest.raises(Refused, match="terminal"):
        run_exec(bench, {**PROCESS, "terminal": True}, stdout=1)
    run_exec(bench, stdout=1)
    assert bench.monitor.arguments("connect")[-1][-1] is True


@pytest.mark.parametrize("step", ["open_slot", "connect", "runtime exec"])
def test_an_exec_step_that_fails_leaves_nothing(bench: Bench, step: str) -> None:
    bench.running()
    bench.monitor.failures[step] = OSError(5, "Input/output error")
    with bench.nothing_changes(), pytest.raises(Failed):
        run_exec(bench, stdout=3)


@pytest.mark.parametrize("streams", [{}, {"stdout": 4}])
def test_an_exec_that_the_runtime_refuses_leaves_nothing(bench: Bench, streams: dict[str, int]) -> None:
    bench.running()
    bench.monitor.outcomes["runtime exec"] = (Finished(255), '{"level":"error","msg":"not found in $PATH"}\n')
    with bench.nothing_changes(), pytest.raises(RuntimeFailed, match="not found"):
        run_exec(bench, **streams)


@pytest.mark.parametrize("member", [True, False])
def test_what_a_failed_runtime_has_started_is_killed_if_it_is_the_container_s(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, member: bool
) -> None:
    bench.running()
    group = bench.cgroup_top / "pods" / "c1"
    group.mkdir(parents=True)
    (group / "cgroup.procs").write_text("4711\n" if member else "1\n")
    killed: list[int] = []
    monkeypatch.setattr(exec.os, "kill", lambda pid, number: killed.append(pid))
    run = bench.monitor.run

    def late(argv: Any, **options: Any) -> Any:
        with open(options["pid_file"], "w") as file:
            file.write("4711")
        return run(argv, **options)

    bench.monitor.run = late  # type: ignore[method-assign]
    bench.monitor.outcomes["runtime exec"] = (Finished(4), '{"level":"error","msg":"late"}\n')
    with bench.nothing_changes(), pytest.raises(RuntimeFailed, match="late"):
        run_exec(bench)
    assert killed == ([4711] if member else [])


def test_an_exec_that_cannot_be_described_leaves_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.running()

    def full(fd: int, data: bytes) -> None:
        os.close(fd)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exec, "write_all", full)
    with bench.nothing_changes(), pytest.raises(Failed, match="No space"):
        run_exec(bench)
    assert bench.monitor.arguments("kill") == []


def test_an_exec_that_cannot_be_recorded_is_killed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.running()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(bench.ctx.journal), "save", full)
    with bench.nothing_changes(), pytest.raises(Failed, match="No space"):
        run_exec(bench)
    assert bench.monitor.arguments("kill") == [(2, 9)]


def test_an_exec_needs_a_running_container(bench: Bench) -> None:
    with pytest.raises(ContainerNotFound):
        run_exec(bench)
    bench.create()
    with pytest.raises(InvalidState):
        run_exec(bench)
    bench.start()
    bench.monitor.end(1, 0)
    with pytest.raises(ContainerStopped):
        run_exec(bench)


def test_a_malformed_process_is_named(bench: Bench) -> None:
    bench.running()
    with bench.nothing_changes(), pytest.raises(InvalidMessage, match=r"OciProcess\.args\[1\]"):
        run_exec(bench, {"args": ["a", 5], "cwd": "/"})


def test_an_exec_that_ends_before_its_pid_is_answered_is_not_lost(bench: Bench) -> None:
    bench.running()
    run = bench.monitor.run

    def quick(argv: Any, **options: Any) -> Any:
        finished = run(argv, **options)
        if argv[5] == "exec":
            bench.monitor.end(options["slot"], 4)
        return finished

    bench.monitor.run = quick  # type: ignore[method-assign]
    pid = run_exec(bench)
    assert bench.wait("c1", pid) == [4]


# External


def test_an_external_process_runs_what_the_policy_has_seen(bench: Bench) -> None:
    run_external(bench, command_line="ls -l 'a b'", env={"A": "1"}, cwd="/tmp", stdout=5)
    ((_, asked),) = bench.gate.asked
    assert asked == {"argList": ["ls", "-l", "a b"], "envList": ["A=1"], "workingDir": "/tmp"}
    (spawned,) = bench.monitor.arguments("spawn")
    assert spawned["argv"] == ["ls", "-l", "a b"]
    assert spawned["env"] == {"A": "1"}
    assert (spawned["cwd"], spawned["ports"]) == ("/tmp", (None, 5, None))


def test_arguments_win_over_a_command_line_and_the_environment_may_be_empty(bench: Bench) -> None:
    run_external(bench, args=("id",), command_line="rm -rf /")
    (spawned,) = bench.monitor.arguments("spawn")
    assert spawned["argv"] == ["id"]
    assert (spawned["env"], spawned["cwd"]) == ({}, "/")


def test_kept_variables_without_a_value_are_left_out(bench: Bench) -> None:
    bench.gate.answers["exec_external"] = Decision(True, env=["A=1", "odd", "=x"], stdio=False)
    run_external(bench, args=("id",), env={"A": "1"})
    (spawned,) = bench.monitor.arguments("spawn")
    assert spawned["env"] == {"A": "1"}
    assert spawned["discard"] is True


@pytest.mark.parametrize("request_", [{}, {"command_line": "  "}, {"args": ("",)}, {"command_line": "''"}])
def test_a_process_without_a_program_is_refused(bench: Bench, request_: dict[str, Any]) -> None:
    with bench.nothing_changes(), pytest.raises(Refused, match="program"):
        run_external(bench, **request_)
    assert bench.gate.asked == []


def test_an_external_terminal_without_stdio_is_refused(bench: Bench) -> None:
    bench.gate.answers["exec_external"] = Decision(True, stdio=False)
    with bench.nothing_changes(), pytest.raises(Refused, match="terminal"):
        run_external(bench, args=("sh",), terminal=True)


def test_a_denied_external_process_leaves_nothing(bench: Bench) -> None:
    bench.gate.denied.add("exec_external")
    with bench.nothing_changes(), pytest.raises(PolicyDenied, match="exec is denied due to policy: no"):
        run_external(bench, args=("sh",))


def test_a_program_that_is_not_there_leaves_nothing(bench: Bench) -> None:
    bench.monitor.failures["spawn"] = FileNotFoundError(2, "No such file or directory")
    with bench.nothing_changes(), pytest.raises(Failed, match="No such file"):
        run_external(bench, args=("nope",))


def test_an_external_process_that_cannot_be_recorded_is_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(bench.ctx.journal), "save_external", full)
    with bench.nothing_changes(), pytest.raises(Failed, match="No space"):
        run_external(bench, args=("sh",))
    assert bench.monitor.arguments("kill") == [(1, 9)]


def test_an_external_process_is_known_by_the_vm_s_id(bench: Bench) -> None:
    pid = run_external(bench, args=("sh",))
    assert bench.ctx.registry.process(NULL_ID, pid).args == ("sh",)
    assert os.listdir(bench.run_dir / "journal") == ["external@1.json"]


@pytest.mark.parametrize(("status", "code"), [(0, 0), (7, 7), (-9, 137), (-15, 143)])
def test_a_signal_counts_128_more(status: int, code: int) -> None:
    assert exit_code_of(status) == code


def test_start_is_what_execute_without_a_process_means(bench: Bench) -> None:
    bench.create()
    assert start.start(bench.ctx, "c1", ExecuteRequest())
