"""Containers and processes in the foreground and in the background."""

from __future__ import annotations

import json
import os
import signal
import termios
import threading
from typing import Any

import pytest

from unit.cli_ctl.conftest import Invoke
from unit.client.fakes import FakeDaemon, ends_with, refusal
from uvmd.bridge.identifiers import Message
from uvmd.cli.ctl import foreground
from uvmd.cli.ctl.run import environment


def created(daemon: FakeDaemon) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(daemon.bodies(Message.CREATE)[0]["ContainerConfig"])
    return document


def parameters(daemon: FakeDaemon) -> dict[str, Any]:
    settings = daemon.bodies(Message.EXECUTE)[0]["Settings"]
    nested: dict[str, Any] = json.loads(settings["ProcessParameters"])
    return nested


def sent(daemon: FakeDaemon) -> list[int]:
    return [type_word for type_word, _ in daemon.requests]


def test_run_shows_the_output_and_ends_with_the_commands_status(
    invoke: Invoke, daemon: FakeDaemon, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon.program = ends_with(7, b"out\n", b"err\n")
    result = invoke("run", "--rm", "--name", "c1", "/srv/rootfs", "sh", "-c", "exit 7")
    assert result.exit_code == 7
    assert capfd.readouterr() == ("out\n", "err\n")
    assert created(daemon)["OciBundlePath"] == "/run/gcs/c/c1"
    assert created(daemon)["OciSpecification"]["process"]["args"] == ["sh", "-c", "exit 7"]
    order = [Message.CREATE, Message.START, Message.EXECUTE, Message.WAIT, Message.DELETE]
    assert sent(daemon)[1:] == order


def test_without_rm_the_container_stays(invoke: Invoke, daemon: FakeDaemon) -> None:
    invoke("run", "/srv/rootfs", "true")
    assert not daemon.bodies(Message.DELETE)
    assert len(daemon.bodies(Message.CREATE)[0]["ContainerId"]) == 12


def test_stdin_is_passed_on_only_when_asked_for(
    invoke: Invoke, daemon: FakeDaemon, stdin_pipe: int, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon.program = lambda given: (0, given.upper(), b"")
    os.write(stdin_pipe, b"hello\n")
    os.close(stdin_pipe)
    invoke("run", "/srv/rootfs", "cat")
    assert capfd.readouterr().out == ""
    assert "CreateStdInPipe" not in parameters(daemon)


def test_stdin_reaches_the_process_with_i(
    invoke: Invoke, daemon: FakeDaemon, stdin_pipe: int, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon.program = lambda given: (0, given.upper(), b"")
    os.write(stdin_pipe, b"hello\n")
    os.close(stdin_pipe)
    assert invoke("run", "-i", "/srv/rootfs", "cat").exit_code == 0
    assert capfd.readouterr().out == "HELLO\n"


def test_detached_it_prints_the_id_and_connects_nothing(invoke: Invoke, daemon: FakeDaemon) -> None:
    result = invoke("run", "-d", "--name", "web", "/srv/rootfs", "httpd")
    assert (result.exit_code, result.stdout) == (0, "web\n")
    assert "VsockStdioRelaySettings" not in daemon.bodies(Message.EXECUTE)[0]["Settings"]
    assert not daemon.bodies(Message.WAIT)


def test_detached_as_json_it_prints_the_pid_too(invoke: Invoke, daemon: FakeDaemon) -> None:
    result = invoke("run", "-d", "--name", "web", "--json", "/srv/rootfs", "httpd")
    assert json.loads(result.stdout) == {"id": "web", "pid": 101}


def test_the_timing_has_every_step(invoke: Invoke, daemon: FakeDaemon) -> None:
    daemon.program = ends_with(0, b"x")
    result = invoke("run", "--rm", "--timing", "--json", "/srv/rootfs", "true")
    assert list(json.loads(result.stderr)["ms"]) == ["create", "start", "first output", "exit", "delete"]


def test_the_timing_is_a_table_for_people(invoke: Invoke, daemon: FakeDaemon) -> None:
    lines = invoke("run", "--timing", "/srv/rootfs", "true").stderr.splitlines()
    assert lines[0].split() == ["STEP", "MS"]
    assert [line.split()[0] for line in lines[1:]] == ["create", "start", "exit"]


def test_flags_become_a_spec_without_touching_a_daemon(invoke: Invoke) -> None:
    result = invoke(
        *["run", "--print-spec", "-e", "A=b", "-v", "/a:/b:ro", "-w", "/tmp", "-u", "5:6", "--hostname", "h"],
        *["-m", "64m", "--cpus", "0.5", "--pids-limit", "9", "--read-only", "--network", "host"],
        *["--tee", "out.log", "--annotation", "k=v", "/srv/rootfs", "ls", "-l"],
    )
    spec = json.loads(result.stdout)
    assert spec["process"]["args"] == ["ls", "-l"]
    assert "A=b" in spec["process"]["env"]
    assert spec["process"]["cwd"] == "/tmp"
    assert spec["process"]["user"]["username"].startswith("5")
    assert spec["hostname"] == "h"
    assert spec["root"]["readonly"] is True
    assert spec["mounts"][-1]["destination"] == "/b"
    assert spec["linux"]["resources"]["memory"] == {"limit": 64 << 20}
    assert spec["annotations"]["k"] == "v"
    assert len(spec["annotations"]) == 3


@pytest.mark.parametrize(
    "flags",
    [["--rm", "-d"], ["-i", "-d"], ["-t"], ["--cpus", "x"]],
)
def test_flags_that_do_not_go_together_are_a_wrong_usage(invoke: Invoke, flags: list[str]) -> None:
    assert invoke("run", *flags, "/srv/rootfs", "sh").exit_code == 2


def test_a_wrong_value_names_its_flag(invoke: Invoke) -> None:
    result = invoke("run", "-v", "a:b", "/srv/rootfs", "sh")
    assert result.exit_code == 1
    assert "volume 'a:b'" in result.stderr


def test_a_start_that_fails_is_cleaned_up_with_rm(invoke: Invoke, daemon: FakeDaemon) -> None:
    daemon.answers[Message.EXECUTE] = lambda _: refusal(0x80004005, "no such program")
    daemon.answers[Message.SHUTDOWN_FORCED] = lambda _: refusal(0xC0370110, "stopped")
    result = invoke("run", "--rm", "/srv/rootfs", "nonsense")
    assert result.exit_code == 1
    assert result.stderr == "uvmctl: E_FAIL (0x80004005): no such program\n"
    assert daemon.bodies(Message.DELETE)


def test_a_start_that_fails_says_what_stays(invoke: Invoke, daemon: FakeDaemon) -> None:
    daemon.answers[Message.EXECUTE] = lambda _: refusal(0x80004005, "no such program")
    result = invoke("run", "--name", "c1", "/srv/rootfs", "nonsense")
    assert "uvmctl rm -f c1" in result.stderr
    assert not daemon.bodies(Message.DELETE)


def test_signals_are_passed_on(invoke: Invoke, daemon: FakeDaemon) -> None:
    got = threading.Event()
    before = signal.getsignal(signal.SIGUSR1)

    def record(_: dict[str, Any]) -> dict[str, Any]:
        got.set()
        return {}

    def program(_: bytes) -> tuple[int, bytes, bytes]:
        # Sent before the handler is there it would end the tests.
        while signal.getsignal(signal.SIGUSR1) == before:
            got.wait(0.001)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        got.wait(10)
        return 0, b"", b""

    daemon.answers[Message.SIGNAL] = record
    daemon.program = program
    assert invoke("run", "/srv/rootfs", "sleep").exit_code == 0
    (body,) = daemon.bodies(Message.SIGNAL)
    assert body["Options"] == {"Signal": int(signal.SIGUSR1)}
    assert signal.getsignal(signal.SIGUSR1) == before


def test_an_output_that_nobody_reads_ends_the_process(
    invoke: Invoke, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pipe()
    os.close(read)
    monkeypatch.setattr(foreground, "_STDOUT", write)
    killed, end = threading.Event(), daemon.exit

    def kill(_: dict[str, Any]) -> dict[str, Any]:
        killed.set()
        return {}

    def end_when_killed(pid: int, status: int) -> dict[str, Any]:
        return end(pid, status) if killed.wait(10) else {}

    monkeypatch.setattr(daemon, "exit", end_when_killed)
    daemon.answers[Message.SHUTDOWN_FORCED] = kill
    daemon.program = ends_with(0, b"y\n")
    result = invoke("run", "/srv/rootfs", "yes")
    assert killed.is_set()
    assert result.exit_code == 128 + signal.SIGPIPE
    os.close(write)


def test_a_terminal_is_raw_while_the_process_runs_and_sized(
    invoke: Invoke, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (31, 99))
    before = termios.tcgetattr(slave)
    monkeypatch.setattr(foreground, "_STDIN", slave)
    resized, raw = threading.Event(), list[bool]()

    def resize(_: dict[str, Any]) -> dict[str, Any]:
        resized.set()
        return {}

    def program(given: bytes) -> tuple[int, bytes, bytes]:
        resized.wait(10)
        raw.append(not termios.tcgetattr(slave)[3] & termios.ICANON)
        return 0, b"", b""

    daemon.answers[Message.RESIZE] = resize
    daemon.program = program
    daemon.reads_stdin = False
    result = invoke("run", "-it", "/srv/rootfs", "sh")
    assert (result.exit_code, raw) == (0, [True])
    body = daemon.bodies(Message.RESIZE)[0]
    assert (body["Height"], body["Width"]) == (31, 99)
    assert created(daemon)["OciSpecification"]["process"]["consoleSize"] == {"height": 31, "width": 99}
    assert "CreateStdErrPipe" not in parameters(daemon)
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


def test_an_exec_has_its_own_environment_and_user(invoke: Invoke, daemon: FakeDaemon) -> None:
    daemon.program = ends_with(3)
    result = invoke("exec", "-e", "A=b", "-u", "nobody", "-w", "/tmp", "web", "id", "-u")
    assert result.exit_code == 3
    process = parameters(daemon)["OciProcess"]
    assert process["args"] == ["id", "-u"]
    assert process["user"] == {"uid": 0, "gid": 0, "username": "nobody"}
    assert process["cwd"] == "/tmp"
    assert "A=b" in process["env"]
    assert daemon.bodies(Message.EXECUTE)[0]["ContainerId"] == "web"


@pytest.mark.parametrize("named", [False, True])
def test_an_exec_names_its_capabilities_where_a_policy_wants_that(
    invoke: Invoke, daemon: FakeDaemon, named: bool
) -> None:
    invoke("exec", *(["--usual-capabilities"] if named else []), "web", "true")
    assert ("capabilities" in parameters(daemon)["OciProcess"]) is named


def test_an_exec_in_the_vm_takes_no_id(invoke: Invoke, daemon: FakeDaemon) -> None:
    result = invoke("exec", "--vm", "-d", "sleep", "60")
    assert result.stdout == "101\n"
    assert parameters(daemon)["CommandArgs"] == ["sleep", "60"]


@pytest.mark.parametrize(
    "words",
    [
        ["web"],
        ["--vm", "-u", "x", "id"],
        ["--vm", "--usual-capabilities", "id"],
        ["-d", "-i", "web", "sh"],
        ["-t", "web", "sh"],
    ],
)
def test_an_exec_that_makes_no_sense_is_a_wrong_usage(invoke: Invoke, words: list[str]) -> None:
    assert invoke("exec", *words).exit_code == 2


def test_an_unusual_exit_code_becomes_one_byte(invoke: Invoke, daemon: FakeDaemon) -> None:
    daemon.program = ends_with(4294967295)
    assert invoke("exec", "--vm", "x").exit_code == 255


def test_a_bare_name_takes_our_own_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UVMCTL_TEST", "x")
    assert environment(["A=b", "UVMCTL_TEST", "UVMCTL_NOT_SET"]) == ["A=b", "UVMCTL_TEST=x"]


def ps_of(**containers: int) -> dict[str, Any]:
    rows = [{"id": name, "state": "running", "pid": pid} for name, pid in containers.items()]
    return {"Properties": json.dumps({"uvmd.ps": {"containers": rows, "processes": []}})}


def test_a_container_joins_the_pod_of_a_running_sandbox(invoke: Invoke, daemon: FakeDaemon) -> None:
    daemon.answers[Message.GET_PROPERTIES] = lambda body: ps_of(shop=77)
    assert invoke("run", "-d", "--name", "web", "--pod", "shop", "/srv/rootfs", "true").exit_code == 0
    spaces = created(daemon)["OciSpecification"]["linux"]["namespaces"]
    assert {"type": "network", "path": "/proc/77/ns/net"} in spaces


def test_a_pod_without_a_sandbox_cannot_be_joined(invoke: Invoke, daemon: FakeDaemon) -> None:
    daemon.answers[Message.GET_PROPERTIES] = lambda body: ps_of(other=77)
    result = invoke("run", "-d", "--name", "web", "--pod", "shop", "/srv/rootfs", "true")
    assert result.exit_code != 0
    assert "uvmctl run -d --name shop --pod shop" in result.output
    assert not daemon.bodies(Message.CREATE)
    assert "--print-spec" in invoke("run", "--print-spec", "--pod", "shop", "/srv/rootfs", "true").output
