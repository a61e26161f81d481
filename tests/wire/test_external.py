"""Processes in the VM itself, started with the null id (spec containers.md 11.4)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from support.containers import created
from support.daemon import Daemon, running
from support.host import NULL_ID, RESIZE, SIGNAL, WAIT, ZERO_GUID, Connection, Process, Refused, code
from support.matrix import row

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


@pytest.fixture(scope="module")
def one_daemon() -> Iterator[Daemon]:
    with running() as started:
        yield started


@pytest.fixture(scope="module")
def vm(one_daemon: Daemon) -> Iterator[Connection]:
    connection = one_daemon.connect()
    yield connection
    connection.close()


def start(vm: Connection, *args: str, **options) -> Process:
    parameters = {"CommandArgs": list(args), "Environment": ENVIRONMENT, "WorkingDirectory": "/"}
    streams = {name: options.pop(name) for name in ("stdin", "stdout", "stderr", "hold") if name in options}
    return vm.execute(NULL_ID, parameters={**parameters, **options}, **streams)


def script(vm: Connection, text: str, **options) -> Process:
    return start(vm, "/bin/sh", "-c", text, **options)


def test_output_input_and_exit_code(vm: Connection) -> None:
    process = script(vm, "cat; echo err >&2; exit 9", stdin=True, stdout=True, stderr=True)
    process.stdin.write(b"through the vm")
    process.stdin.half_close()
    assert process.stdout.read_all() == b"through the vm"
    assert process.stderr.read_all() == b"err\n"
    assert process.wait() == 9


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"CommandArgs": ["/bin/echo", "a\0b"]}, "CommandArgs[1]"),
        ({"CommandLine": "/bin/echo a\0b"}, "CommandLine"),
        ({"CommandArgs": ["/bin/env"], "Environment": {"A": "1\0"}}, "Environment[*]"),
        ({"CommandArgs": ["/bin/env"], "Environment": {"A\0": "1"}}, "Environment[*]"),
        ({"CommandArgs": ["/bin/pwd"], "WorkingDirectory": "/\0/etc"}, "WorkingDirectory"),
    ],
)
def test_a_text_with_a_nul_is_refused(vm: Connection, parameters: dict[str, object], field: str) -> None:
    with pytest.raises(Refused) as caught:
        vm.execute(NULL_ID, parameters=parameters)
    assert code(caught.value.answer) == "INVALID_JSON"
    assert caught.value.answer["ErrorMessage"] == f"ProcessParameters.{field} has a NUL"


def test_streams_that_were_not_asked_for_are_dev_null(vm: Connection) -> None:
    process = script(vm, "readlink /proc/self/fd/0 /proc/self/fd/2", stdout=True)
    assert process.stdout.read_all() == b"/dev/null\n/dev/null\n"
    assert process.wait() == 0


def test_a_stream_is_the_socket_itself(vm: Connection) -> None:
    process = script(vm, "readlink /proc/self/fd/1", stdout=True)
    assert process.stdout.read_all().startswith(b"socket:")
    # No relay: the code does not wait for us to close.
    process = script(vm, "echo x", stdout=True, hold=True)
    assert process.wait(timeout_s=5) == 0


def test_the_environment_is_exactly_the_given_one(vm: Connection) -> None:
    process = start(vm, "/usr/bin/env", stdout=True, Environment={"A": "1", "PATH": "/bin", "EMPTY": ""})
    assert sorted(process.stdout.read_all().decode().split()) == ["A=1", "EMPTY=", "PATH=/bin"]
    process = start(vm, "/usr/bin/env", stdout=True, Environment={})
    assert process.stdout.read_all() == b""


def test_the_program_is_found_by_the_daemons_path(vm: Connection) -> None:
    assert start(vm, "true", Environment={}).wait() == 0


def test_the_folder_is_the_given_one(vm: Connection) -> None:
    process = start(vm, "pwd", stdout=True, WorkingDirectory="/usr")
    assert process.stdout.read_all() == b"/usr\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("printf '%s|' a  b", "a|b|"),
        (r"""printf "%s|" "a b" 'c d' e\ f "" ''""", "a b|c d|e f|||"),
        ("printf %s x| $HOME `echo x y`", "x"),
        ("printf '%s|' $HOME `echo x y` $(echo z)", "$HOME|`echo x y`|$(echo z)|"),
        (r"printf '%s|' '\n' x\ty", r"\n|x" + "\t" + "y|"),
        ("printf %s x; echo never", "x"),
        ("printf %s y 2>/dev/null", "y"),
        ("printf '%s|' a#b #c", "a#b|#c|"),
    ],
)
def test_a_command_line_is_split_as_the_specification_says(vm: Connection, line: str, expected: str) -> None:
    process = start(vm, stdout=True, CommandLine=line, CommandArgs=[])
    process.wait()
    text = process.stdout.read_all().decode()
    assert text == expected


@row("external.signal")
def test_a_signalled_process_reports_128_and_the_signal(vm: Connection) -> None:
    process = start(vm, "sleep", "60")
    vm.signal(NULL_ID, process.pid, 15)
    assert process.wait() == 143


def test_the_default_signal_is_kill(vm: Connection) -> None:
    process = start(vm, "sleep", "60")
    vm.signal(NULL_ID, process.pid)
    assert process.wait() == 137


@row("external.forgotten")
def test_it_is_forgotten_once_its_code_was_delivered(vm: Connection) -> None:
    process = start(vm, "true")
    assert process.wait() == 0
    for message in (WAIT, SIGNAL):
        answer = vm.ask(message, {"ContainerId": NULL_ID, "ActivityId": ZERO_GUID, "ProcessId": process.pid})
        assert code(answer) in ("NOT_FOUND", "SYSTEM_NOT_FOUND")


def test_a_pid_that_is_not_ours_is_never_signalled(vm: Connection) -> None:
    body = {"ContainerId": NULL_ID, "ActivityId": ZERO_GUID, "ProcessId": os.getpid()}
    assert code(vm.ask(SIGNAL, {**body, "Options": {"Signal": 10}})) in ("NOT_FOUND", "SYSTEM_NOT_FOUND")


@row("external.resize")
def test_a_console_is_a_terminal_of_its_own(vm: Connection) -> None:
    process = script(
        vm, "tty; stty size; read line; echo got $line; exit 3", EmulateConsole=True, stdin=True, stdout=True
    )
    process.stdout.read_until(b"/dev/pts/")
    body = {
        "ContainerId": NULL_ID,
        "ActivityId": ZERO_GUID,
        "ProcessId": process.pid,
        "Height": 33,
        "Width": 99,
    }
    assert code(vm.ask(RESIZE, body)) == "S_OK"
    process.stdin.write(b"hello\n")
    assert process.wait() == 3
    assert b"got hello" in process.stdout.read_all()


def test_a_resize_without_a_console_fails(vm: Connection) -> None:
    process = start(vm, "sleep", "60")
    body = {
        "ContainerId": NULL_ID,
        "ActivityId": ZERO_GUID,
        "ProcessId": process.pid,
        "Height": 3,
        "Width": 9,
    }
    assert code(vm.ask(RESIZE, body)) == "E_FAIL"
    vm.signal(NULL_ID, process.pid)
    process.wait()


def test_a_container_id_with_the_in_vm_flag_runs_in_the_vm(vm: Connection) -> None:
    with created(vm, "/bin/sleep", "60") as container:
        parameters = {"CommandArgs": ["readlink", "/proc/self/ns/mnt"], "CreateInUtilityVM": True}
        process = vm.execute(container.id, parameters={**parameters, "Environment": ENVIRONMENT}, stdout=True)
        assert process.stdout.read_all().decode().strip() == os.readlink("/proc/self/ns/mnt")
        assert vm.wait(NULL_ID, process.pid) == 0


def test_its_pid_is_the_one_the_kernel_knows(vm: Connection) -> None:
    process = script(vm, "echo $$; sleep 60", stdout=True)
    assert int(process.stdout.read_until(b"\n")) == process.pid
    vm.signal(NULL_ID, process.pid)
    assert process.wait() == 137


def test_many_at_once_are_all_reaped(vm: Connection) -> None:
    processes = [script(vm, f"exit {n}") for n in range(40)]
    time.sleep(0.1)
    assert [process.wait() for process in processes] == list(range(40))
