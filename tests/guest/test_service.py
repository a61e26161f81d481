"""uvmd as systemd runs it: stopped, killed, refused."""

from __future__ import annotations

import pytest

from guest.harness.code import ROOTFS
from guest.harness.errors import CommandFailed
from guest.harness.guest import Guest
from guest.harness.leaks import assert_nothing_left, holdings
from support import specs
from support.containers import created, new_id


def test_stopping_the_service_takes_the_containers_down(fresh_guest: Guest) -> None:
    bridge = fresh_guest.bridge
    bridge.create(container := new_id(), specs.container("/bin/sleep", "600", root=ROOTFS))
    pid = bridge.execute(container).pid
    fresh_guest.daemon.stop()
    state = fresh_guest.daemon.state
    assert (state["ActiveState"], state["Result"], state["ExecMainStatus"]) == ("inactive", "success", "0")
    assert not fresh_guest.daemon.pids
    left = fresh_guest.call(holdings)
    assert not [path for path in [*left["cgroups"], *left["bundles"]] if container in path]
    assert fresh_guest.sh(f"kill -0 {pid} 2>&1", check=False)


def test_the_service_starts_again_after_a_stop(fresh_guest: Guest) -> None:
    before = fresh_guest.call(holdings)
    fresh_guest.daemon.restart()
    assert fresh_guest.run("/bin/true").exit_code == 0
    assert_nothing_left(fresh_guest, before)


def test_systemd_starts_another_monitor_when_it_dies(fresh_guest: Guest) -> None:
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
            guest.hang_up()
            container.bridge = guest.bridge
            assert container.exec("/bin/true").wait() == 0
