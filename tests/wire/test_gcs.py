"""`gcs`: an existing host's command line starts uvmd unchanged."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support import machine
from support.containers import run, shell
from support.daemon import ENVIRONMENT, Daemon, wait_until
from support.host import NEGOTIATE, NULL_ID, ZERO_GUID, Connection, code

GCS = str(machine.BIN / "gcs")
#: What a real host's kernel command line carries (spec bridge.md 1.5).
FLAGS = ("-v4", "-log-format", "json", "-loglevel", "debug", "-disable-time-sync", "-scrub-logs=true")


def own_cgroup(daemon: Daemon) -> str:
    return f"{daemon.pods}-own"


@contextmanager
def gcs(*flags: str, stdio: bool = False) -> Iterator[Daemon]:
    daemon = Daemon(program=[GCS, *flags], stdio=stdio)
    # Folders and the socket instead of the machine's own: the reference has no flags for them.
    for key, value in daemon.options.items():
        if key != "transport" or not stdio:
            daemon.environment["UVMD_" + key.replace("-", "_").upper()] = value
    daemon.environment["UVMD_CGROUPS_OWN"] = own_cgroup(daemon)
    try:
        daemon.start()
        yield daemon
        if daemon.exit_status is None:
            assert daemon.stop() == 0, daemon.describe()
    finally:
        daemon.close()


def test_a_container_runs_under_the_references_flags() -> None:
    with gcs(*FLAGS) as daemon:
        bridge = daemon.connect()
        ran = run(bridge, *shell("echo from gcs; exit 6"))
        assert (ran.exit_code, ran.stdout) == (6, b"from gcs\n")
        bridge.close()
        assert daemon.stop() == 0
        assert daemon.log_lines()


def test_use_inouterr_is_the_stdio_transport() -> None:
    # No streams here: this transport dials them over vsock, to the real host of this machine.
    with gcs(*FLAGS, "-use-inouterr", stdio=True) as daemon:
        bridge = daemon.connect()
        external = {"CommandArgs": ["true"], "Environment": {}}
        assert bridge.execute(NULL_ID, parameters=external).wait() == 0
        bridge.close()
        assert daemon.wait() == 0, daemon.describe()


def test_without_v4_nothing_is_registered() -> None:
    with gcs("-log-format=json") as daemon:
        bridge: Connection = daemon.connect(negotiate=False)
        body = {"ContainerId": "", "ActivityId": ZERO_GUID, "MinimumVersion": 4, "MaximumVersion": 4}
        assert code(bridge.ask(NEGOTIATE, body)) == "E_NOTIMPL"
        bridge.close()
        assert daemon.stop() == 0


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        (("-no-such-flag",), {2}),
        (("-v4=perhaps",), {2}),
        (("-loglevel", "loud"), {1, 2, 78}),
        (("-log-format", "xml"), {1, 2, 78}),
    ],
)
def test_a_wrong_flag_ends_it_and_names_the_flag(flags: tuple[str, ...], status: set[int]) -> None:
    environment = {**ENVIRONMENT, "UVMD_TRANSPORT": "unix:/nonexistent/host"}
    ended = subprocess.run([GCS, *flags], env=environment, capture_output=True, timeout=15, check=False)
    assert ended.returncode in status
    assert flags[0].strip("-").partition("=")[0].encode() in ended.stderr
    assert b"Traceback" not in ended.stderr


def logged(daemon: Daemon, words: str) -> dict[str, Any] | None:
    return next((line for line in daemon.log_lines() if words in line["msg"]), None)


def memory_cgroup(pid: int) -> str:
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    wanted = "0::" if machine.cgroup_mode() == "v2" else ":memory:"
    return next(line.partition(wanted)[2] for line in lines if wanted in line)


def test_monitor_and_daemon_are_in_a_cgroup_of_their_own_and_the_last_to_be_killed() -> None:
    status = Path("/proc/self/status").read_text()
    may_lower = int(status.partition("CapEff:")[2].split()[0], 16) >> 24 & 1  # CAP_SYS_RESOURCE
    protected = "-999" if may_lower else Path("/proc/self/oom_score_adj").read_text().strip()
    with gcs(*FLAGS) as daemon:
        bridge = daemon.connect()
        for pid in (daemon.monitor_pid, daemon.daemon_pid):
            assert memory_cgroup(pid) == own_cgroup(daemon)
            assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == protected
        # What they start is nobody's but the kernel's to judge.
        ran = run(bridge, *shell("cat /proc/self/oom_score_adj"))
        assert ran.stdout == b"0\n"
        daemon.kill_daemon()
        daemon.connect().close()
        assert memory_cgroup(daemon.daemon_pid) == own_cgroup(daemon)
        bridge.close()
        assert daemon.stop() == 0
        left = [
            top for top in machine.cgroup_hierarchies() if (top / own_cgroup(daemon).lstrip("/")).exists()
        ]
        assert not left


def test_using_more_memory_than_the_flag_says_is_warned_of_once() -> None:
    with gcs(*FLAGS, "-gcs-mem-limit-bytes", "1048576") as daemon:
        daemon.connect().close()
        line = wait_until(lambda: logged(daemon, "uses much memory"), what="the warning")
        assert line["level"] == "warning"
        assert line["usage_bytes"] > 1_000_000
        assert sum("uses much memory" in line["msg"] for line in daemon.log_lines()) == 1
        assert logged(daemon, "-gcs-mem-limit-bytes=1048576 is below")


def test_the_kernels_log_is_forwarded_without_a_flag() -> None:
    mark = f"uvmd-test-{secrets.token_hex(8)}"
    with gcs(*FLAGS) as daemon:
        daemon.connect().close()
        Path("/dev/kmsg").write_text(f"<4>{mark}\n")
        wait_until(lambda: mark in daemon.log_text(), what="the kernel's line is forwarded")


def test_without_a_clock_of_the_hypervisor_time_synchronisation_is_a_warning() -> None:
    flags = [flag for flag in FLAGS if flag != "-disable-time-sync"]
    with gcs(*flags) as daemon:
        bridge = daemon.connect()
        assert run(bridge, "true").exit_code == 0
        bridge.close()
        assert wait_until(lambda: logged(daemon, "time is not synchronised"))["level"] == "warning"
