"""uvmd as systemd runs it, two units: the daemon comes and goes, the monitor stays."""

from __future__ import annotations

import pytest

from guest.harness.code import ROOTFS
from guest.harness.daemon import DAEMON, MONITOR
from guest.harness.guest import Guest
from support import specs
from support.containers import created, new_id, shell
from uvmd.api.testing.guest.errors import CommandFailed
from uvmd.api.testing.guest.leaks import assert_nothing_left, holdings

#: What the daemon's unit says of itself, cut short: an emulated guest needs some seconds for a start.
WATCHDOG = "/run/systemd/system/uvmd.service.d/watchdog.conf"
#: Every capability of Linux 6.1.
FULL = "1ffffffffff"


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def active(guest: Guest) -> list[str]:
    return [guest.daemon.state_of(unit)["ActiveState"] for unit in (MONITOR, DAEMON)]


def end_by(how: str, guest: Guest) -> None:
    """Have the daemon replaced by systemd."""
    daemon = guest.daemon.pids["daemon"]
    if how == "restart":
        guest.sh("systemctl restart uvmd", timeout_s=60)
    elif how == "killed":
        guest.sh(f"kill -KILL {daemon}")
    else:
        guest.sh(f"kill -STOP {daemon}")


@pytest.mark.parametrize("how", ["restart", "killed", "stopped"])
def test_a_container_outlives_the_daemon_on_the_same_connection(fresh_guest: Guest, how: str) -> None:
    guest = fresh_guest
    if how == "stopped":
        guest.sh(f"mkdir -p $(dirname {WATCHDOG}); printf '[Service]\\nWatchdogSec=8\\n' >{WATCHDOG}")
        guest.sh("systemctl daemon-reload; systemctl restart uvmd", timeout_s=60)
    before, bridge = guest.daemon.pids, guest.bridge
    with created(bridge, *shell("echo before; read line; echo $line; exit 7"), root=ROOTFS) as container:
        init = container.init(stdin=True, stdout=True)
        init.stdout.read_until(b"before\n")
        exited = bridge.send_wait(container.id, init.pid)
        end_by(how, guest)
        guest.daemon.wait_for_another(before["daemon"])
        assert container.exec("/bin/true").wait() == 0
        init.stdin.write(b"after\n")
        assert init.stdout.read_all() == b"before\nafter\n"
        assert bridge.answer(exited, 60)["ExitCode"] == 7
    assert guest.daemon.pids["monitor"] == before["monitor"]
    assert bridge is guest.bridge
    assert bridge.is_open
    assert active(guest) == ["active", "active"]


def test_settings_that_are_refused_stop_the_daemon_and_no_container(fresh_guest: Guest) -> None:
    guest = fresh_guest
    settings = guest.read("/etc/uvmd/uvmd.toml")
    with created(guest.bridge, "/bin/sleep", "600", root=ROOTFS) as container:
        container.init()
        guest.daemon.configure("[plugin.nobody]\nx = 1")
        # A reload looks first.
        daemon = guest.daemon.pids["daemon"]
        assert "failed" in guest.sh("systemctl reload uvmd 2>&1", check=False, timeout_s=60)
        assert guest.daemon.pids["daemon"] == daemon
        assert container.exec("/bin/true").wait() == 0
        guest.sh("systemctl restart uvmd", check=False, timeout_s=60)
        state = guest.daemon.state
        assert (state["ActiveState"], state["ExecMainStatus"], state["NRestarts"]) == ("failed", "78", "0")
        assert guest.daemon.state_of(MONITOR)["ActiveState"] == "active"
        guest.call(_write, "/etc/uvmd/uvmd.toml", settings)
        guest.sh("systemctl start uvmd", timeout_s=60)
        assert container.exec("/bin/true").wait() == 0


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def test_stopping_the_monitor_takes_everything_down_also_without_a_daemon(fresh_guest: Guest) -> None:
    bridge = fresh_guest.bridge
    bridge.create(container := new_id(), specs.container("/bin/sleep", "600", root=ROOTFS))
    pid = bridge.execute(container).pid
    fresh_guest.sh("systemctl stop uvmd", timeout_s=60)
    assert active(fresh_guest) == ["active", "inactive"]
    fresh_guest.sh(f"kill -0 {pid}")
    fresh_guest.sh("systemctl stop uvmd-monitor", timeout_s=60)
    for unit in (MONITOR, DAEMON):
        state = fresh_guest.daemon.state_of(unit)
        assert (state["ActiveState"], state["Result"]) == ("inactive", "success")
    assert not fresh_guest.daemon.pids
    left = fresh_guest.call(holdings)
    assert not [path for path in [*left["cgroups"], *left["bundles"]] if container in path]
    assert fresh_guest.sh(f"kill -0 {pid} 2>&1", check=False)


def test_both_start_again_after_a_stop(fresh_guest: Guest) -> None:
    before = fresh_guest.call(holdings)
    fresh_guest.daemon.restart()
    assert fresh_guest.run("/bin/true").exit_code == 0
    assert_nothing_left(fresh_guest, before)


def test_systemd_starts_both_anew_when_the_monitor_dies(fresh_guest: Guest) -> None:
    fresh_guest.hang_up()
    dead = fresh_guest.daemon.pids["monitor"]
    fresh_guest.sh(f"kill -9 {dead}")
    fresh_guest.daemon.wait_until_serving(not_as=dead)
    assert fresh_guest.run("/bin/true").exit_code == 0


def test_a_refused_start_is_not_tried_again(fresh_guest: Guest) -> None:
    fresh_guest.daemon.stop()
    with pytest.raises(CommandFailed, match="pigeon"):
        fresh_guest.daemon.start({"transport": "pigeon"})
    state = fresh_guest.daemon.state
    assert (state["ActiveState"], state["ExecMainStatus"], state["NRestarts"]) == ("failed", "78", "0")


def test_a_daemon_that_dies_again_and_again_keeps_its_container(guest: Guest) -> None:
    with created(guest.bridge, "/bin/sleep", "600", root=ROOTFS) as container:
        container.init()
        for _ in range(2):
            guest.daemon.wait_for_another(guest.daemon.kill())
            assert container.exec("/bin/true").wait() == 0


def test_the_daemon_is_confined_and_containers_inherit_nothing_of_it(guest: Guest) -> None:
    with created(guest.bridge, "/bin/sleep", "600", root=ROOTFS) as container:
        assert guest.call(_status, container.init().pid)["Seccomp"] == "0"
    pids = guest.daemon.pids
    monitor, daemon = guest.call(_status, pids["monitor"]), guest.call(_status, pids["daemon"])
    assert (monitor["NoNewPrivs"], monitor["Seccomp"], monitor["CapBnd"].lstrip("0")) == ("0", "0", FULL)
    assert (daemon["NoNewPrivs"], daemon["Seccomp"]) == ("1", "2")
    assert int(daemon["CapBnd"], 16).bit_count() == 15
    for kind in ("mnt", "net", "uts", "ipc"):
        links = {guest.sh(f"readlink /proc/{pid}/ns/{kind}") for pid in (1, *pids.values())}
        assert len(links) == 1, kind
