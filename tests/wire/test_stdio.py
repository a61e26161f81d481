"""Streams of container processes: every byte, both directions, and how they end."""

from __future__ import annotations

import hashlib
import os
import threading
import time

import pytest

from support import rootfs, specs
from support.containers import created, run, shell
from support.daemon import Daemon, running
from support.host import EXECUTE, SHUTDOWN_FORCED, SIGNAL, ZERO_GUID, Connection, Refused, code
from support.matrix import row
from support.streams import Output

GIB = 1 << 30
MIB = 1 << 20


ALL = ("stdin", "stdout", "stderr")


@pytest.mark.parametrize("wanted", [(), ("stdout",), ("stderr",), ("stdin",), ALL], ids=str)
def test_any_set_of_streams_may_be_asked_for(bridge: Connection, wanted: tuple[str, ...]) -> None:
    with created(bridge, *shell("cat; echo out; echo err >&2; exit 6")) as container:
        init = container.init(**dict.fromkeys(wanted, True))
        if "stdin" in wanted:
            init.stdin.write(b"in\n")
            init.stdin.half_close()
        assert init.wait() == 6
        if "stdout" in wanted:
            assert init.stdout.read_all() == (b"in\nout\n" if "stdin" in wanted else b"out\n")
        if "stderr" in wanted:
            assert init.stderr.read_all() == b"err\n"


def test_an_unused_stdin_is_at_its_end(bridge: Connection) -> None:
    assert run(bridge, *shell("cat; echo done")).stdout == b"done\n"


def test_unused_outputs_do_not_break_the_writer(bridge: Connection) -> None:
    # More than a pipe holds, and no SIGPIPE (spec containers.md 16.46).
    much = "head -c 1000000 /dev/zero && head -c 1000000 /dev/zero >&2 && exit 5"
    with created(bridge, *shell(much)) as container:
        assert container.init().wait() == 5
    with created(bridge, "/bin/sleep", "60") as container:
        container.init()
        assert container.exec(*shell(much)).wait() == 5


def test_an_exec_has_streams_of_its_own(bridge: Connection) -> None:
    with created(bridge, "/bin/sleep", "60") as container:
        container.init()
        exec_ = container.exec("/bin/cat", stdin=True, stdout=True)
        exec_.stdin.write(b"x" * 100_000)
        exec_.stdin.half_close()
        assert exec_.stdout.read_all() == b"x" * 100_000
        assert exec_.wait() == 0


def test_stdin_that_ends_half_way_is_seen_as_the_end(bridge: Connection) -> None:
    with created(bridge, *shell("cat; echo end; sleep 60")) as container:
        init = container.init(stdin=True, stdout=True)
        init.stdin.write(b"a\n")
        init.stdout.read_until(b"a\n")
        init.stdin.half_close()
        init.stdout.read_until(b"end")
        container.kill()
        assert init.wait() == 137


def test_the_exit_code_does_not_wait_for_the_hosts_stdin(bridge: Connection) -> None:
    with created(bridge, *shell("read line; exit 8")) as container:
        init = container.init(stdin=True)
        init.stdin.write(b"go\n")
        assert init.wait(timeout_s=5) == 8  # our end of stdin is still open


def test_the_exit_code_waits_for_the_output(bridge: Connection) -> None:
    with created(bridge, *shell("head -c 3000000 /dev/zero; exit 3")) as container:
        gate = threading.Event()
        init = container.init(stdout=True, start=gate)
        waiting = bridge.send_wait(container.id, init.pid)
        time.sleep(0.3)
        assert not bridge.answered(waiting)
        gate.set()
        assert bridge.answer(waiting)["ExitCode"] == 3
        init.stdout.join()
        assert init.stdout.count == 3_000_000


def test_the_exit_code_waits_until_the_host_has_closed(bridge: Connection) -> None:
    with created(bridge, *shell("echo bye")) as container:
        init = container.init(stdout=True, hold=True)
        waiting = bridge.send_wait(container.id, init.pid)
        assert init.stdout.read_all() == b"bye\n"
        time.sleep(0.2)
        assert not bridge.answered(waiting)
        init.stdout.close()
        assert bridge.answer(waiting)["ExitCode"] == 0


def test_a_grandchild_that_holds_the_output_delays_the_code_only_for_a_while(runtime: str) -> None:
    with running(runtime=runtime, options={"stdio-drain-grace-s": "1"}) as daemon:
        bridge = daemon.connect()
        with created(bridge, "/bin/sleep", "60") as container:
            container.init()
            exec_ = container.exec(*shell("sleep 50 & exit 2"), stdout=True)
            started = time.monotonic()
            assert exec_.wait(timeout_s=30) == 2
            assert 0.5 < time.monotonic() - started < 5
        bridge.close()


@row("execute.dial-failure")
def test_a_stream_that_cannot_be_dialled_fails_the_request_and_leaves_init_startable(
    daemon: Daemon, bridge: Connection
) -> None:
    with created(bridge, *shell("echo late")) as container:
        port, listener = bridge.host.next_port()
        first = Output(listener)
        settings = {
            "ProcessParameters": '{"CreateStdOutPipe": true, "CreateStdErrPipe": true}',
            "VsockStdioRelaySettings": {"StdOut": port, "StdErr": port + 5000},
        }
        body = {"ContainerId": container.id, "ActivityId": ZERO_GUID, "Settings": settings}
        assert code(bridge.ask(EXECUTE, body, timeout_s=60)) == "E_FAIL"
        assert first.read_all() == b"", "the streams dialled before the failure are closed"
        init = container.init(stdout=True)
        assert init.wait() == 0
        assert init.stdout.read_all() == b"late\n"


@row("execute.second-start")
def test_a_second_start_is_refused_and_harmless(bridge: Connection) -> None:
    with created(bridge, *shell("read line; echo $line")) as container:
        init = container.init(stdin=True, stdout=True)
        with pytest.raises(Refused):
            container.init(stdout=True)
        init.stdin.write(b"still\n")
        assert init.stdout.read_all() == b"still\n"
        assert init.wait() == 0


@pytest.mark.slow
def test_a_gibibyte_comes_out_unharmed(bridge: Connection) -> None:
    # A mebibyte that is not all zeros, a thousand and twenty-four times.
    script = (
        "head -c 1048576 /bin/busybox >/tmp/block; "
        "i=0; while [ $i -lt 1024 ]; do cat /tmp/block; i=$((i+1)); done"
    )
    with created(bridge, *shell(script)) as container:
        init = container.init(stdout=True, keep=False)
        assert init.wait(timeout_s=120) == 0
        init.stdout.join()
        assert init.stdout.count == GIB
        block = (rootfs.shared() / "bin" / "busybox").read_bytes()[:MIB]
        expected = hashlib.sha256()
        for _ in range(1024):
            expected.update(block)
        assert init.stdout.sha256 == expected.hexdigest()


@pytest.mark.slow
def test_a_gibibyte_goes_in_unharmed(bridge: Connection) -> None:
    with created(bridge, "/bin/sha256sum") as container:
        init = container.init(stdin=True, stdout=True)
        block = os.urandom(MIB)
        expected = hashlib.sha256()
        for _ in range(1024):
            init.stdin.write(block)
            expected.update(block)
        init.stdin.half_close()
        assert init.stdout.read_all(timeout_s=120).split()[0].decode() == expected.hexdigest()
        assert init.wait() == 0


# -- re-dialling (spec containers.md 10.5)


def test_init_output_is_dialled_again_when_the_host_vanished(bridge: Connection) -> None:
    # More than all buffers on the way hold, so that the writer meets the lost connection.
    with created(bridge, "/bin/seq", "1", "400000") as container:
        gate = threading.Event()
        init = container.init(stdout=True, close_after=2000, start=gate)
        assert init.stdout.accepted.wait(10)
        again = Output(bridge.host.listen_again(init.ports["StdOut"]))
        bridge.host.streams.append(again)
        gate.set()
        waiting = bridge.send_wait(container.id, init.pid)
        text, seen = again.read_all(), bytes(init.stdout.received)
        assert bridge.answer(waiting)["ExitCode"] == 0
        whole = "".join(f"{n}\n" for n in range(1, 400001)).encode()
        assert whole.startswith(seen)
        assert whole.endswith(text)
        # The last 128 KiB are sent again; what the kernel held for the lost host may be more.
        assert len(seen) + len(text) >= len(whole) - MIB // 2


@row("signal.ends-redial")
def test_a_kill_ends_the_redial_and_the_code_comes(bridge: Connection) -> None:
    # The host closed early and refuses to listen again: spec containers.md 16.18.
    with created(bridge, *shell("while :; do echo spam; done")) as container:
        init = container.init(stdout=True, close_after=1000)
        init.stdout.join()
        bridge.signal(container.id, init.pid, 9)
        assert init.wait(timeout_s=30) == 137


def test_a_shutdown_ends_the_redial(bridge: Connection) -> None:
    with created(bridge, *shell("while :; do echo spam; done")) as container:
        init = container.init(stdout=True, close_after=1000)
        init.stdout.join()
        body = {"ContainerId": container.id, "ActivityId": ZERO_GUID}
        assert code(bridge.ask(SHUTDOWN_FORCED, body)) == "S_OK"
        assert init.wait(timeout_s=30) == 137


def test_exec_output_is_not_dialled_again(bridge: Connection) -> None:
    with created(bridge, "/bin/sleep", "60") as container:
        container.init()
        exec_ = container.exec(*shell("while :; do echo spam; done"), stdout=True, close_after=1000)
        exec_.stdout.join()
        again = Output(bridge.host.listen_again(exec_.ports["StdOut"]))
        time.sleep(0.5)
        assert not again.accepted.is_set()
        again.abandon()
        # Gone by SIGPIPE or still writing into the void, it can be killed and waited for.
        bridge.ask(SIGNAL, {"ContainerId": container.id, "ActivityId": ZERO_GUID, "ProcessId": exec_.pid})
        assert exec_.wait(timeout_s=10) in (137, 141)


# -- tee (spec containers.md 7.11)

TEE = {"io.microsoft.container.lcow.tee-log-path": "app/out.log"}


@row("create.tee")
def test_output_is_also_written_to_the_tee_log(daemon: Daemon, bridge: Connection) -> None:
    script = "echo one; sleep 0.1; echo two >&2; sleep 0.1; echo three; sleep 60"
    with created(bridge, *shell(script), annotations=TEE) as container:
        init = container.init(stdout=True, stderr=True)
        init.stdout.read_until(b"three")
        exec_ = container.exec(*shell("echo not me"), stdout=True)
        assert exec_.wait() == 0
        log = bridge.host.bundle(container.id) / "logs" / "app" / "out.log"
        assert log.read_bytes() == b"one\ntwo\nthree\n"
        assert log.stat().st_mode & 0o022 == 0, "not writable by others"


def test_the_tee_log_is_written_without_streams(daemon: Daemon, bridge: Connection) -> None:
    with created(bridge, *shell("echo alone; echo too >&2; sleep 60"), annotations=TEE) as container:
        container.init()
        log = bridge.host.bundle(container.id) / "logs" / "app" / "out.log"
        deadline = time.monotonic() + 10
        while not (log.exists() and b"alone\ntoo\n" in log.read_bytes()):
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.parametrize("path", ["../out.log", "/../../x", "..", ""])
def test_a_tee_log_outside_its_folder_is_refused(bridge: Connection, path: str) -> None:
    annotations = {"io.microsoft.container.lcow.tee-log-path": path}
    if path == "":
        assert run(bridge, "/bin/true", annotations=annotations).exit_code == 0
        return
    with pytest.raises(Refused):
        run(bridge, "/bin/true", annotations=annotations)


def test_the_tee_folder_can_be_mounted_into_the_container(bridge: Connection) -> None:
    annotations = {**TEE, "io.microsoft.container.lcow.tee-log-dir-mount": "/mnt"}
    script = "echo logged; sleep 0.3; text=$(cat /mnt/app/out.log); echo got $text"
    assert run(bridge, *shell(script), annotations=annotations).stdout == b"logged\ngot logged\n"


def test_a_stream_may_be_a_file_that_the_process_opens(bridge: Connection) -> None:
    # Images write to /dev/stdout, which fails on a socket (spec containers.md 10.2).
    assert run(bridge, *shell("echo through >/dev/stdout; echo e >/dev/stderr")).stdout == b"through\n"
    with created(bridge, "/bin/sleep", "60") as container:
        container.init()
        process = specs.process(*shell("echo exec >/dev/stdout"))
        exec_ = bridge.execute(container.id, process, stdout=True)
        assert exec_.wait() == 0
        assert exec_.stdout.read_all() == b"exec\n"
