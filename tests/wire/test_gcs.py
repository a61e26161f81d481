"""`gcs`: an existing host's command line starts uvmd unchanged."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support import machine
from support.containers import run, shell
from support.daemon import ENVIRONMENT, Daemon
from support.host import NEGOTIATE, NULL_ID, ZERO_GUID, Connection, code

GCS = str(machine.BIN / "gcs")
#: What a real host's kernel command line carries (spec bridge.md 1.5).
FLAGS = ("-v4", "-log-format", "json", "-loglevel", "debug", "-disable-time-sync", "-scrub-logs=true")


@contextmanager
def gcs(*flags: str, stdio: bool = False) -> Iterator[Daemon]:
    daemon = Daemon(program=[GCS, *flags], stdio=stdio)
    # Folders and the socket instead of the machine's own: the reference has no flags for them.
    for key, value in daemon.options.items():
        if key != "transport" or not stdio:
            daemon.environment["UVMD_" + key.replace("-", "_").upper()] = value
    try:
        daemon.start()
        yield daemon
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
