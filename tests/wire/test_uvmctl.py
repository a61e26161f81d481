"""`uvmctl` against the real daemon, as a person and as a script would use it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import machine, rootfs
from support.containers import new_id
from support.daemon import ENVIRONMENT, Daemon, running, wait_until
from uvmd.client import ContainerOptions, RemoteError, build_spec, connect, parse_address

UVMCTL = str(machine.BIN / "uvmctl")


class Ctl:
    """Runs commands that are the host of one daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.environment = {**ENVIRONMENT, "UVMD_HOST": daemon.host.address, "TERM": "dumb"}

    def __call__(
        self, *arguments: str, status: int = 0, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        ended = subprocess.run(
            [UVMCTL, *arguments],
            env=self.environment,
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == status, f"{ended}\n{self.daemon.describe()}"
        return ended

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json").stdout)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen([UVMCTL, *arguments], env=self.environment, **options)


@pytest.fixture(scope="module")
def ctl() -> Iterator[Ctl]:
    # Bundles where uvmctl puts them by default.
    with running(options={"paths-bundle-roots": "/run/gcs"}) as daemon:
        daemon.host.refuse()  # the commands are the host here
        yield Ctl(daemon)


@pytest.fixture
def name(ctl: Ctl) -> Iterator[str]:
    """The id of a container that is removed afterwards, if it is there."""
    made_up = f"t-{new_id()[:12]}"
    yield made_up
    if any(entry["id"] == made_up for entry in ctl.json("ps")["containers"]):
        ctl("rm", "-f", made_up)


ROOT = str(rootfs.shared())


def run_in_background(ctl: Ctl, name: str, *command: str) -> None:
    ctl("run", "-d", "--name", name, "--read-only", ROOT, *command)


def test_run_streams_output_and_passes_the_exit_code_on(ctl: Ctl) -> None:
    ended = ctl("run", "--rm", ROOT, "sh", "-c", "echo out; echo err >&2; exit 7", status=7)
    assert (ended.stdout, ended.stderr) == (b"out\n", b"err\n")


def test_a_pipe_through_a_container_is_binary_safe(ctl: Ctl) -> None:
    data = os.urandom(300_000)
    assert ctl("run", "--rm", "-i", ROOT, "cat", stdin=data).stdout == data


def test_a_container_in_the_background_is_seen_measured_entered_and_removed(ctl: Ctl, name: str) -> None:
    run_in_background(ctl, name, "sleep", "600")
    (entry,) = [entry for entry in ctl.json("ps")["containers"] if entry["id"] == name]
    assert entry["state"] == "running"
    assert ctl.json("stats", name)[name]["pids"]["current"] == 1
    assert ctl("exec", name, "echo", "inside").stdout == b"inside\n"
    assert ctl("exec", "-i", name, "wc", "-c", stdin=b"12345").stdout.strip() == b"5"
    assert ctl("exec", name, "sh", "-c", "exit 9", status=9)
    ctl("stop", "--time", "1", name)
    assert ctl("wait", name, status=137)
    ctl("rm", name)
    assert ctl("rm", name, status=1).stderr.count(b"SYSTEM_NOT_FOUND") == 1


def test_create_start_kill_and_wait_are_steps_of_their_own(ctl: Ctl, name: str, tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_bytes(ctl("run", "--print-spec", "--read-only", ROOT, "sleep", "600").stdout)
    ctl("create", "-f", str(spec), name)
    ctl("start", name)
    ctl("wait", "--time", "0.2", name, status=1)
    ctl("kill", name)
    ctl("wait", name, status=137)
    ctl("rm", name)


def test_signal_reaches_the_process_that_was_named(ctl: Ctl, name: str) -> None:
    run_in_background(ctl, name, "sh", "-c", "trap 'exit 5' USR1; while :; do sleep 0.05; done")
    pid = next(entry for entry in ctl.json("ps")["containers"] if entry["id"] == name)["pid"]
    time.sleep(0.2)
    ctl("signal", name, str(pid), "USR1")
    ctl("wait", name, status=5)


def test_errors_carry_the_hresults_name(ctl: Ctl) -> None:
    ended = ctl("exec", "nothing-here", "true", status=1)
    assert b"SYSTEM_NOT_FOUND" in ended.stderr
    assert b"Traceback" not in ended.stderr
    described = json.loads(ctl("rm", "--json", "nothing-here", status=1).stderr.splitlines()[-1])
    assert (described["name"], described["hresult"]) == ("SYSTEM_NOT_FOUND", "0xC037010E")
    assert ctl("run", "--no-such-option", status=2)


def test_modify_sends_a_file(ctl: Ctl, name: str, tmp_path: Path) -> None:
    run_in_background(ctl, name, "sleep", "600")
    request = tmp_path / "request.json"
    settings = {"Linux": {"memory": {"limit": 48 << 20}}}
    request.write_text(
        json.dumps({"ResourceType": "ContainerConstraints", "RequestType": "Update", "Settings": settings})
    )
    ctl("modify", "--id", name, "-f", str(request))
    assert ctl.json("stats", name)[name]["memory"]["usage"]["limit"] == 48 << 20


def test_raw_sends_any_message_and_prints_the_answer(ctl: Ctl) -> None:
    body = '{"ContainerId": "nobody", "ActivityId": "00000000-0000-0000-0000-000000000000"}'
    assert json.loads(ctl("raw", "--json", "0x10100201", body).stdout)["Result"] == 0
    answer = json.loads(ctl("raw", "--json", "0x10100d01", body, status=1).stdout)
    assert answer["Result"] & 0xFFFFFFFF == 0xC037010E


def test_stacks_and_ping_answer(ctl: Ctl) -> None:
    assert b"hread" in ctl("stacks").stdout
    assert ctl.json("ping", "-c", "20")


def test_a_process_in_the_vm(ctl: Ctl) -> None:
    ended = ctl("exec", "--vm", "readlink", "/proc/self/ns/pid")
    assert ended.stdout.decode().strip() == os.readlink("/proc/self/ns/pid")


def test_a_signal_at_the_command_reaches_the_container(ctl: Ctl, name: str) -> None:
    script = "trap 'echo got it; exit 33' TERM; echo ready; while :; do sleep 0.05; done"
    with ctl.start(
        "run", "--rm", "--name", name, ROOT, "sh", "-c", script, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b"got it\n"
        assert process.wait(20) == 33


class Terminal:
    """A command with a real terminal in front of it."""

    def __init__(self, ctl: Ctl, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        self.resize(30, 90)
        self.process = ctl.start(*arguments, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        self.text = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def write(self, data: bytes) -> None:
        os.write(self.master, data)

    def read_until(self, wanted: bytes, timeout_s: float = 15) -> None:
        deadline = time.monotonic() + timeout_s
        while wanted not in self.text:
            left = deadline - time.monotonic()
            assert left > 0, f"no {wanted!r} in {self.text!r}"
            if select.select([self.master], [], [], left)[0]:
                try:
                    self.text += os.read(self.master, 65536)
                except OSError:
                    raise AssertionError(f"ended without {wanted!r}: {self.text!r}") from None

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        os.close(self.master)


@pytest.fixture
def shell_in(ctl: Ctl, name: str) -> Iterator[Terminal]:
    run_in_background(ctl, name, "sleep", "600")
    terminal = Terminal(ctl, "exec", "-it", name, "sh")
    yield terminal
    terminal.close()


def test_an_interactive_shell_has_a_terminal_of_our_size(shell_in: Terminal) -> None:
    shell_in.write(b"stty size; echo $((20 + 22))\r")
    shell_in.read_until(b"30 90")
    shell_in.read_until(b"\r\n42\r\n")
    shell_in.resize(44, 120)
    os.kill(shell_in.process.pid, signal.SIGWINCH)
    deadline = time.monotonic() + 10
    while b"44 120" not in shell_in.text:
        assert time.monotonic() < deadline
        shell_in.write(b"stty size\r")
        time.sleep(0.1)
        shell_in.read_until(b"\r\n")
        with contextlib.suppress(AssertionError):
            shell_in.read_until(b"44 120", timeout_s=0.3)
    shell_in.write(b"exit 6\r")
    assert shell_in.process.wait(15) == 6


def test_control_c_goes_to_the_program_and_not_to_us(shell_in: Terminal) -> None:
    shell_in.write(b"sleep 100\r")
    shell_in.read_until(b"sleep 100")
    time.sleep(0.3)
    shell_in.write(b"\x03")
    shell_in.write(b"echo still-$((1 + 1))\r")
    shell_in.read_until(b"still-2")
    shell_in.write(b"exit\r")
    shell_in.process.wait(15)


def test_it_without_a_terminal_is_refused_with_a_reason(ctl: Ctl, name: str) -> None:
    run_in_background(ctl, name, "sleep", "600")
    assert b"terminal" in ctl("exec", "-it", name, "sh", status=2).stderr


def test_a_shared_connection_serves_many_commands_at_once(ctl: Ctl, name: str) -> None:
    holder = ctl.start("host", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        shared = Path(f"{ctl.daemon.host.path}.ctl")
        wait_until(shared.exists, what="uvmctl host listens")
        assert shared.stat().st_mode & 0o077 == 0
        run_in_background(ctl, name, "sleep", "600")
        listening = ctl.start("events", "--json", "-n", "1", stdout=subprocess.PIPE)
        long = ctl.start("exec", name, "sh", "-c", "sleep 1; echo slow", stdout=subprocess.PIPE)
        began = time.monotonic()
        assert ctl("exec", name, "echo", "quick").stdout == b"quick\n"
        assert time.monotonic() - began < 1
        assert long.communicate(timeout=20)[0] == b"slow\n"
        time.sleep(0.2)
        ctl("kill", name)
        event = json.loads(listening.communicate(timeout=20)[0])
        assert event["ContainerId"] == name
        ctl("rm", name)
    finally:
        holder.send_signal(signal.SIGINT)
        holder.wait(10)


def test_the_library_does_what_the_command_does(ctl: Ctl) -> None:
    container_id = f"t-{new_id()[:12]}"
    spec = build_spec(
        container_id, ContainerOptions(rootfs=ROOT, args=("sh", "-c", "cat; exit 3"), read_only=True)
    )
    with connect(parse_address(ctl.daemon.host.address)) as client:
        client.create(container_id, bundle=f"/run/gcs/c/{container_id}", spec=spec)
        client.start(container_id)
        with client.run_init(container_id, stdin=True, stdout=True) as init:
            output = init.collect(b"through the library")
        assert (output.status, output.stdout) == (3, b"through the library")
        assert "LCOWMetrics" in client.properties(container_id, ["Statistics"])
        client.delete(container_id)
        with pytest.raises(RemoteError) as caught:
            client.delete(container_id)
        assert caught.value.name == "SYSTEM_NOT_FOUND"
