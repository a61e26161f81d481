"""How it ends (DESIGN: settled questions), and what a host cannot end."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from support import specs
from support.containers import created, new_id, shell
from support.daemon import Daemon, is_running, running, wait_until
from support.host import NULL_ID, SHUTDOWN_FORCED, SHUTDOWN_GRACEFUL, ZERO_GUID, Connection, code
from support.leaks import cgroups, files, mounts
from support.matrix import row


def start_two(bridge: Connection) -> list[int]:
    """One container with an exec, one only created; their pids."""
    first, second = new_id(), new_id()
    bridge.create(first, specs.container(*shell("trap '' TERM; sleep 600")))
    init = bridge.execute(first, stdout=True)
    exec_ = bridge.execute(first, specs.process("/bin/sleep", "600"))
    bridge.create(second, specs.container("/bin/sleep", "600"))
    external = bridge.execute(
        NULL_ID, parameters={"CommandArgs": ["sleep", "600"], "Environment": {"PATH": "/bin"}}
    )
    return [init.pid, exec_.pid, external.pid]


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT], ids=lambda sig: sig.name)
def test_a_signal_kills_and_deletes_every_container(runtime: str, sig: signal.Signals) -> None:
    with running(runtime=runtime) as daemon:
        before = mounts(daemon)
        bridge = daemon.connect()
        pids = start_two(bridge)
        decider = daemon.daemon_pid
        assert daemon.stop(sig) == 0
        assert not [pid for pid in [*pids, decider] if is_running(pid)]
        assert cgroups(daemon.pods) == set()
        assert files(daemon.bundles) <= {"c"}
        assert mounts(daemon) == before
        left = files(daemon.run_dir) if daemon.run_dir.exists() else set()
        assert not [name for name in left if name.count("/") > 0], left
        bridge.close()


def test_a_stop_without_any_host_is_quick() -> None:
    with running() as daemon:
        wait_until(daemon.find_daemon)
        started = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - started < 3


def test_a_stop_while_requests_are_running_is_clean(runtime: str) -> None:
    with running(runtime=runtime) as daemon:
        bridge = daemon.connect()
        spec = specs.container("/bin/sleep", "600")
        for _ in range(6):
            container_id = new_id()
            config = bridge.host.container_config(container_id, spec)
            body = {"ContainerId": container_id, "ActivityId": ZERO_GUID, "ContainerConfig": config}
            bridge.send(0x10100101, body)
        time.sleep(0.05)
        assert daemon.stop() == 0
        assert cgroups(daemon.pods) == set()
        assert files(daemon.bundles) <= {"c"}
        bridge.close()


def test_sigterm_to_the_daemon_of_a_whole_ends_the_whole(daemon: Daemon, bridge: Connection) -> None:
    # Monitor and daemon run as one command here; under a separate monitor only the daemon stops.
    pids = start_two(bridge)
    os.kill(daemon.daemon_pid, signal.SIGTERM)
    assert daemon.wait() == 0, daemon.describe()
    assert not [pid for pid in pids if is_running(pid)]


@row("shutdown.null-id")
@pytest.mark.parametrize("message", [SHUTDOWN_GRACEFUL, SHUTDOWN_FORCED], ids=hex)
def test_a_power_off_request_is_refused_and_nothing_happens(
    daemon: Daemon, bridge: Connection, message: int
) -> None:
    # [vm] agent is false here, as it is everywhere but in a VM whose PID 1 is ours.
    with created(bridge, "/bin/sleep", "60") as container:
        init = container.init()
        answer = bridge.ask(message, {"ContainerId": NULL_ID, "ActivityId": ZERO_GUID})
        assert code(answer) == "E_FAIL"
        assert answer["ErrorMessage"]
        assert is_running(init.pid)
        assert container.exec("/bin/true").wait() == 0


# -- the stdio transport


def test_the_bridge_over_descriptors_zero_and_one(runtime: str) -> None:
    with running(runtime=runtime, stdio=True) as daemon:
        bridge = daemon.connect()
        with created(bridge, *shell("cat; exit 4")) as container:
            init = container.init(stdin=True, stdout=True)
            init.stdin.write(b"over pipes")
            init.stdin.half_close()
            assert init.wait() == 4
            assert init.stdout.read_all() == b"over pipes"
        bridge.close()
        assert daemon.wait() == 0, daemon.describe()


@row("stdio.end-of-file")
def test_the_end_of_file_on_stdin_kills_and_deletes_everything(runtime: str) -> None:
    with running(runtime=runtime, stdio=True) as daemon:
        bridge = daemon.connect()
        pids = start_two(bridge)
        bridge.close()
        assert daemon.wait() == 0, daemon.describe()
        assert not [pid for pid in pids if is_running(pid)]
        assert cgroups(daemon.pods) == set()
        assert files(daemon.bundles) <= {"c"}


def test_containers_inherit_nothing_of_the_bridge_descriptors(runtime: str) -> None:
    with running(runtime=runtime, stdio=True) as daemon:
        bridge = daemon.connect()
        with created(bridge, "/bin/sleep", "60") as container:
            init = container.init()
            # The runtime answers before its init has become the program, with descriptors of its own.
            comm = Path(f"/proc/{init.pid}/comm")
            wait_until(lambda: "sleep" in comm.read_text(), what="init is the program")
            links = [os.readlink(entry) for entry in Path(f"/proc/{init.pid}/fd").iterdir()]
            assert len(links) == 3
        bridge.close()
        assert daemon.wait() == 0


# -- refusal to start


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"no-such-flag": "1"}, "no-such-flag"),
        ({"log-level": "loud"}, "log"),
        ({"transport": "carrier-pigeon"}, "transport"),
        ({"plugins-require": "nobody-provides-this"}, "nobody-provides-this"),
        ({"runtime-timeout-s": "soon"}, "timeout"),
    ],
)
def test_a_wrong_option_refuses_the_start_and_says_which(options: dict[str, str], words: str) -> None:
    with running(options=options) as daemon:
        assert daemon.wait(10) != 0
        assert words in daemon.log_text()
        assert "Traceback" not in daemon.log_text()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[log]\nlevle = 'info'\n", "levle"),
        ("[plugins]\nallow = ['no_such_plugin']\n", "no_such_plugin"),
        ("[log\n", "uvmd.toml"),
        ("transport = 5\n", "transport"),
    ],
)
def test_a_typo_in_the_configuration_refuses_the_start(tmp_path: Path, text: str, words: str) -> None:
    config = tmp_path / "uvmd.toml"
    config.write_text(text)
    with running(options={"config": str(config)}) as daemon:
        assert daemon.wait(10) != 0
        assert words in daemon.log_text()
        assert "Traceback" not in daemon.log_text()


def test_file_environment_and_flags_win_in_this_order(tmp_path: Path) -> None:
    config = tmp_path / "uvmd.toml"
    config.write_text("transport = 'unix:/nowhere'\n[log]\nlevel = 'error'\n")
    with running(
        options={"config": str(config)}, environment={"UVMD_TRANSPORT": "unix:/elsewhere"}
    ) as daemon:
        bridge = daemon.connect()  # the flag's transport
        bridge.close()
    for level, shown in (("error", False), ("info", True)):
        with running(environment={"UVMD_LOG_LEVEL": level}) as daemon:
            daemon.connect().close()
        assert any(line["msg"] == "request" for line in daemon.log_lines()) == shown


# -- sd_notify


def test_readiness_is_announced(tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(10)
        with running(environment={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as daemon:
            bridge = daemon.connect()
            text = listener.recv(4096).decode()
            assert "READY=1" in text
            # A runtime that inherits the variable hangs until the container says READY=1.
            with created(bridge, *shell("echo ${NOTIFY_SOCKET-none}")) as container:
                init = container.init(stdout=True)
                assert init.wait() == 0
                assert init.stdout.read_all() == b"none\n"
            bridge.close()
