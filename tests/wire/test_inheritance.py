"""A container's process is as the bare runtime would have made it: nothing of uvmd leaks in."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import machine, specs
from support.containers import created
from support.daemon import Daemon, wait_until
from support.host import NULL_ID, Connection

#: Fields of /proc/PID/status that differ between any two processes.
VARYING = set(
    [
        "Name",
        "Pid",
        "PPid",
        "Tgid",
        "Ngid",
        "NStgid",
        "NSpid",
        "NSpgid",
        "NSsid",
        "TracerPid",
        "State",
        "FDSize",
        "SigQ",
        "VmPeak",
        "VmSize",
        "VmLck",
        "VmPin",
        "VmHWM",
        "VmRSS",
        "RssAnon",
        "RssFile",
        "RssShmem",
        "VmData",
        "VmStk",
        "VmExe",
        "VmLib",
        "VmPTE",
        "VmSwap",
        "voluntary_ctxt_switches",
        "nonvoluntary_ctxt_switches",
    ]
)


def facts(pid: int) -> dict[str, str]:
    """What a process inherited, as the kernel shows it."""
    proc = Path(f"/proc/{pid}")
    # A runtime's start returns when its init goes on to exec, which may take a moment.
    wait_until(lambda: (proc / "comm").read_text() == "sleep\n", what="the program runs")
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    found = {f"status {key}": value.strip() for key, value in status.items() if key not in VARYING}
    # Signals 32 and 33 are the C library's own; a shell's children may inherit them ignored.
    found["status SigIgn"] = f"{int(found['status SigIgn'], 16) & ~(3 << 31):016x}"
    found["limits"] = (proc / "limits").read_text()
    found["oom_score_adj"] = (proc / "oom_score_adj").read_text()
    found["environ"] = repr(sorted((proc / "environ").read_bytes().split(b"\0")))
    found["descriptors"] = repr(sorted(os.listdir(proc / "fd")))
    found["personality"] = (proc / "personality").read_text()
    return found


@pytest.fixture
def bare_init(runtime: str, tmp_path: Path) -> Iterator[int]:
    """The init of the same bundle, made by the runtime alone."""
    name = f"bare-{secrets.token_hex(6)}"
    spec = specs.container("/bin/sleep", "60")
    spec["linux"]["cgroupsPath"] = f"/uvmd-test-{name}/{name}"
    spec["hostname"] = "box"
    (tmp_path / "config.json").write_text(json.dumps(spec))
    program = machine.runtime_path(runtime)
    pid_file = tmp_path / "pid"
    create = [program, "create", "--bundle", str(tmp_path), "--no-pivot", "--pid-file", str(pid_file), name]
    # As a service manager starts a daemon: no inherited descriptors, default limits.
    subprocess.run(create, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, umask=0o022)
    subprocess.run([program, "start", name], check=True, stdin=subprocess.DEVNULL)
    yield int(pid_file.read_text())
    subprocess.run([program, "delete", "--force", name], check=True)
    for hierarchy in machine.cgroup_hierarchies():
        if (hierarchy / f"uvmd-test-{name}").exists():
            (hierarchy / f"uvmd-test-{name}").rmdir()


def test_init_is_as_the_bare_runtime_makes_it(bridge: Connection, bare_init: int) -> None:
    with created(bridge, "/bin/sleep", "60") as container:
        assert facts(container.init().pid) == facts(bare_init)


def test_the_daemon_s_filter_of_system_calls_is_its_own(daemon: Daemon, bridge: Connection) -> None:
    def filtered(pid: int | str) -> str:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return status["Seccomp"].strip()

    tasks = os.listdir(f"/proc/{daemon.daemon_pid}/task")
    assert {filtered(f"{daemon.daemon_pid}/task/{task}") for task in tasks} == {"2"}
    assert filtered(daemon.monitor_pid) == filtered("self")
    with created(bridge, "/bin/sleep", "60") as container:
        assert filtered(container.init().pid) == filtered("self")


def test_an_exec_is_as_its_container(bridge: Connection) -> None:
    with created(bridge, "/bin/sleep", "60") as container:
        init, exec_ = container.init(), container.exec("/bin/sleep", "60")
        assert facts(exec_.pid) == facts(init.pid)


def test_a_process_in_the_vm_inherits_only_its_streams(daemon: Daemon, bridge: Connection) -> None:
    parameters = {"CommandArgs": ["sleep", "60"], "Environment": {"A": "b"}}
    process = bridge.execute(NULL_ID, parameters=parameters, stdout=True)
    is_program = Path(f"/proc/{process.pid}/comm").read_text
    wait_until(lambda: is_program() == "sleep\n", what="the program")
    found = facts(process.pid)
    assert found["descriptors"] == "['0', '1', '2']"
    assert found["status Umask"] == "0022"
    assert found["oom_score_adj"] == "0\n"
    assert found["status SigIgn"] == found["status SigBlk"] == "0" * 16
    assert found["environ"] == "[b'', b'A=b']"
    bridge.signal(NULL_ID, process.pid)
    assert process.wait() == 137


def test_files_made_by_a_container_have_its_own_umask(bridge: Connection) -> None:
    with created(bridge, "/bin/sleep", "60") as container:
        container.init()
        exec_ = container.exec("/bin/sh", "-c", "umask; touch /tmp/f; stat -c %a /tmp/f", stdout=True)
        assert exec_.stdout.read_all() == b"0022\n644\n"
        assert exec_.wait() == 0


def test_what_uvmd_writes_is_for_its_owner_only(daemon: Daemon, bridge: Connection) -> None:
    with created(bridge, "/bin/sleep", "60") as container:
        container.init()
        assert daemon.run_dir.stat().st_mode & 0o077 == 0
        for path in (daemon.run_dir / "journal").rglob("*"):
            if path.is_file():
                assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("secret", ["hunter2-in-env", "hunter2-in-args"])
def test_environments_and_arguments_do_not_reach_the_log(
    daemon: Daemon, bridge: Connection, secret: str
) -> None:
    env = ("PATH=/bin", f"PASSWORD={secret}")
    with created(bridge, "/bin/sh", "-c", f": {secret}; exit 1", env=env) as container:
        assert container.init().wait() == 1
    assert secret not in daemon.log_text()
