"""Programs that run to completion under a real monitor, and what they leave behind."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import threading
import time
from pathlib import Path

import pytest

from support.daemon import wait_until
from support.live_monitor import LiveMonitor, StandIn, in_thread
from uvmd.monitor.link import MonitorError

pytestmark = pytest.mark.system

PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}

# Imitates a runtime: the process it leaves behind is handed to the subreaper.
RUNTIME = """
import os, sys, time
pid_file, linger, program = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
pid = os.fork()
if pid == 0:
    inner = os.fork()
    if inner == 0:
        os.setsid()
        os.execvp(program[0], program)
    with open(pid_file, "w") as file:
        file.write(str(inner))
    os._exit(0)
os.waitpid(pid, 0)
time.sleep(linger)
"""


def shell(daemon: StandIn, script: str, **options: object) -> bytes:
    completed = daemon.link.run(["sh", "-c", script], env=PATH, deadline_s=10, **options)  # type: ignore[arg-type]
    assert completed.status == 0, completed
    return completed.output


def runtime(tmp_path: Path, *program: str, linger: float = 0) -> list[str]:
    pid_file = str(tmp_path / "pid")
    return ["/usr/bin/python3", "-I", "-S", "-c", RUNTIME, pid_file, str(linger), *program]


def test_a_child_sees_a_clean_process(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    assert shell(daemon, "umask") == b"0022\n"
    assert shell(daemon, "pwd") == b"/\n"
    assert shell(daemon, "cat /proc/self/oom_score_adj") == b"0\n"
    status = shell(daemon, "cat /proc/self/status")
    masks = dict(line.split(b":", 1) for line in status.splitlines())
    assert {masks[name].strip() for name in (b"SigBlk", b"SigIgn", b"SigCgt")} == {b"0" * 16}
    assert shell(daemon, "ls /proc/self/fd").split() == [b"0", b"1", b"2", b"3"]  # 3: the folder itself
    assert shell(daemon, "ulimit -n") == b"%d\n" % resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    pid, group = shell(daemon, "echo $$; ps -o pgid= -p $$ || cut -d' ' -f5 /proc/$$/stat").split()[:2]
    assert pid == group


def test_a_child_gets_the_environment_it_was_given_and_nothing_of_ours(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    env = {"A": "1", "NOTIFY_SOCKET": "x", "LISTEN_FDS": "1", "WATCHDOG_USEC": "1", "UVMD_MONITOR_FD": "3"}
    completed = daemon.link.run(["/usr/bin/env"], env=env, deadline_s=5)
    assert completed.output == b"A=1\n"


def test_output_of_both_streams_and_input_of_any_size_come_through(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    given = os.urandom(300_000)
    completed = daemon.link.run(
        ["sh", "-c", "cat; echo end >&2"], env=PATH, stdin=given, deadline_s=10, limit_bytes=1 << 20
    )
    assert completed.output == given + b"end\n"


def test_output_above_the_limit_is_cut_and_does_not_block(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    completed = daemon.link.run(
        ["sh", "-c", "head -c 3000000 /dev/zero; exit 5"], env=PATH, deadline_s=10, limit_bytes=1000
    )
    assert (completed.status, completed.output) == (5, bytes(1000))


def test_at_the_deadline_the_whole_group_is_killed(monitor: LiveMonitor, tmp_path: Path) -> None:
    daemon = monitor.start()
    script = f"sleep 100 & echo $! > {tmp_path}/grandchild; echo out; wait"
    completed = daemon.link.run(["sh", "-c", script], env=PATH, deadline_s=0.3)
    assert (completed.status, completed.timed_out, completed.output) == (-signal.SIGKILL, True, b"out\n")
    grandchild = int((tmp_path / "grandchild").read_text())
    daemon.link.run(["true"], env=PATH, deadline_s=5)
    assert not Path(f"/proc/{grandchild}").exists()


def test_a_descendant_that_keeps_the_output_does_not_delay_the_answer(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    before = time.monotonic()
    assert shell(daemon, "sleep 3 & echo now") == b"now\n"
    assert time.monotonic() - before < 2


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["/nonexistent"], errno.ENOENT),
        (["no-such-program-anywhere"], errno.ENOENT),
        (["/etc/passwd"], errno.EACCES),
        ([], errno.EINVAL),
        ([""], errno.EINVAL),
    ],
)
def test_a_program_that_cannot_start_is_an_error(monitor: LiveMonitor, argv: list[str], code: int) -> None:
    daemon = monitor.start()
    with pytest.raises(MonitorError) as caught:
        daemon.link.run(argv, env=PATH, deadline_s=5)
    assert caught.value.errno == code


def test_a_program_starts_in_the_directory_that_was_asked_for(monitor: LiveMonitor, tmp_path: Path) -> None:
    daemon = monitor.start()
    assert shell(daemon, "pwd", cwd=str(tmp_path)) == f"{tmp_path}\n".encode()
    with pytest.raises(MonitorError):
        shell(daemon, "pwd", cwd="/nonexistent")
    assert shell(daemon, "pwd") == b"/\n"


def test_descriptors_become_three_and_up_whatever_numbers_they_had(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    with contextlib.ExitStack() as stack:
        ends = []
        for number in range(12):
            read_end, write_end = os.pipe()
            os.write(write_end, str(number).encode())
            os.close(write_end)
            stack.callback(os.close, read_end)
            ends.append(read_end)
        script = "for n in 3 4 5 6 7 8 9 10 11 12 13 14; do cat /dev/fd/$n; echo; done; ls /proc/self/fd"
        seen = shell(daemon, script, fds=ends).decode().split()
    assert seen[:12] == [str(number) for number in range(12)]
    assert len(seen) == 12 + 16


def test_many_programs_run_at_the_same_time(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    before = time.monotonic()
    outputs = {}

    def run(number: int) -> None:
        outputs[number] = shell(daemon, f"sleep 0.3; echo {number}")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs == {number: f"{number}\n".encode() for number in range(20)}
    assert time.monotonic() - before < 4


def test_the_process_of_the_pid_file_belongs_to_the_slot(monitor: LiveMonitor, tmp_path: Path) -> None:
    daemon = monitor.start()
    slot = daemon.link.new_slot()
    daemon.link.open_slot(slot, label="a container")
    completed = daemon.link.run(
        runtime(tmp_path, "sleep", "100"),
        env=PATH,
        deadline_s=10,
        slot=slot,
        pid_file=str(tmp_path / "pid"),
    )
    assert completed.status == 0
    assert completed.pid == int((tmp_path / "pid").read_text())
    daemon.link.kill(slot, signal.SIGTERM)
    assert daemon.events.wait_for("exited") == ("exited", slot, completed.pid, -signal.SIGTERM)
    daemon.events.wait_for("drained", slot)
    with pytest.raises(ProcessLookupError):
        daemon.link.kill(slot, signal.SIGTERM)


@pytest.mark.parametrize("linger", [0, 0.2])
def test_a_process_that_died_before_its_runtime_is_not_lost(
    monitor: LiveMonitor, tmp_path: Path, linger: float
) -> None:
    daemon = monitor.start()
    for _ in range(5):
        slot = daemon.link.new_slot()
        completed = daemon.link.run(
            runtime(tmp_path, "sh", "-c", "exit 7", linger=linger),
            env=PATH,
            deadline_s=10,
            slot=slot,
            pid_file=str(tmp_path / "pid"),
        )
        assert daemon.events.wait_for("exited") == ("exited", slot, completed.pid, 7)
        daemon.events.wait_for("drained", slot)
        with pytest.raises(ProcessLookupError):
            daemon.link.kill(slot, 0)
        daemon.link.release(slot)


def test_a_runtime_that_fails_leaves_nothing_to_adopt(monitor: LiveMonitor, tmp_path: Path) -> None:
    daemon = monitor.start()
    slot = daemon.link.new_slot()
    daemon.link.open_slot(slot)
    completed = daemon.link.run(
        ["sh", "-c", "exit 3"], env=PATH, deadline_s=5, slot=slot, pid_file=str(tmp_path / "pid")
    )
    assert (completed.status, completed.pid) == (3, 0)
    with pytest.raises(ProcessLookupError):
        daemon.link.kill(slot, 9)


@pytest.mark.parametrize("content", ["", "abc", "1", "-5", "0", "99999999999", f"{os.getpid()}"])
def test_a_pid_file_that_names_no_child_of_ours_is_an_error(
    monitor: LiveMonitor, tmp_path: Path, content: str
) -> None:
    daemon = monitor.start()
    (tmp_path / "pid").write_text(content)
    slot = daemon.link.new_slot()
    daemon.link.open_slot(slot)
    with pytest.raises(MonitorError):
        daemon.link.run(["true"], env=PATH, deadline_s=5, slot=slot, pid_file=str(tmp_path / "pid"))
    with pytest.raises(ProcessLookupError):
        daemon.link.kill(slot, 0)


def test_orphans_are_reaped_and_forgotten(monitor: LiveMonitor) -> None:
    daemon = monitor.start()
    pids = shell(daemon, "for n in 1 2 3; do (sleep 0.1 & echo $!); done").split()
    assert len(pids) == 3
    wait_until(lambda: not any(Path(f"/proc/{int(pid)}").exists() for pid in pids), what="all are reaped")


def test_the_daemons_death_does_not_stop_what_it_was_running(monitor: LiveMonitor, tmp_path: Path) -> None:
    daemon = monitor.start()
    slot = daemon.link.new_slot()
    daemon.link.open_slot(slot, label="left")
    argv = runtime(tmp_path, "sleep", "100", linger=0.5)
    options = {"env": PATH, "deadline_s": 10, "slot": slot, "pid_file": str(tmp_path / "pid")}
    with in_thread(lambda: daemon.link.run(argv, **options)) as result:  # type: ignore[arg-type]
        while not (tmp_path / "pid").exists():
            time.sleep(0.01)
        os.kill(daemon.pid, signal.SIGKILL)
    assert isinstance(result[0], MonitorError)
    again = monitor.next_daemon()
    again.greet()
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            again.link.kill(slot, signal.SIGKILL)
            break
        except ProcessLookupError:
            time.sleep(0.05)
    assert again.events.wait_for("exited", slot)[3] == -signal.SIGKILL
